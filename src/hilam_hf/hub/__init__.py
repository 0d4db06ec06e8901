"""Cards for the Hub: what models and corpora say about themselves."""
