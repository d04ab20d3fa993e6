"""The stored numbers beside the paper's."""
