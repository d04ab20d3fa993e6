"""Where a sweep runs: several rows at once on one machine."""
