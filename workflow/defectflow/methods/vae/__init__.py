"""A variational autoencoder: its network, its training and its scoring with torch."""
