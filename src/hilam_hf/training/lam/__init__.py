"""Training of latent action models."""
