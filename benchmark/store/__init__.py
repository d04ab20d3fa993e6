"""The files under `results/`."""
