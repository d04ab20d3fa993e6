"""Training times for Table 3."""
