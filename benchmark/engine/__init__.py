"""The training loop, and how an iteration runs on a device."""
