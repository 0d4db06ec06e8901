"""What every policy that acts shares: observations, language, history, normalisation, execution of chunks."""
