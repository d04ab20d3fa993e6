"""Reproducibility benchmark for "Fixed-Weight Difference Target Propagation" (AAAI 2023)."""

__version__ = "0.1.0"
