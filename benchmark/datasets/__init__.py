"""Data sets: `load` turns a name of `datasets.yaml` into tensors."""

from benchmark.datasets.loading import load, search_path

__all__ = ["load", "search_path"]
