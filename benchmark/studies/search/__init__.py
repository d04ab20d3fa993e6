"""Hyperparameter search on held-out training samples."""
