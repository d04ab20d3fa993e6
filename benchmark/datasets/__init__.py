"""Data sets: where they lie, in what form, and what is refused; `load` gives them as tensors."""

from benchmark.datasets.loading import load, search_path

__all__ = ["load", "search_path"]
