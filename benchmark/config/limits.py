"""Upper limits for numbers in plans and commands, so that a typing error fails at once."""

LAST_SEED = 2**31 - 1
"""Optuna's samplers take 32-bit seeds, and the number of trials is added to them."""
MOST = 10_000
"""Most seeds, or configurations."""
MOST_EPOCHS = 1_000_000
LONGEST_LABEL = 200
"""Longest label of a row in bytes. A folder's name has the label and a key; file systems allow 255."""
MOST_LAYERS = 1_000
MOST_UNITS = 1_000_000
"""Most units of a layer, and most samples of a minibatch."""
