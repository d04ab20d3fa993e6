"""Table 3 and the scaling study: seconds and memory."""
