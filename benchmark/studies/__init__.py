"""Studies that choose what to train or time."""
