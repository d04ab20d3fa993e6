"""Limits of what plans and commands take: what is more was not meant, and is told at once."""

LAST_SEED = 2**31 - 1
"""Optuna's samplers take 32 bits; the number of trials is added."""
MOST = 10_000
"""Seeds, or configurations."""
MOST_EPOCHS = 1_000_000
LONGEST_LABEL = 200
"""Bytes of a row's label in the name of a folder, which also holds a key; file systems allow 255."""
MOST_LAYERS = 1_000
MOST_UNITS = 1_000_000
"""Of a layer; samples of a minibatch."""
