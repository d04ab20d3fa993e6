"""Statistics, files, provenance, progress and errors."""
