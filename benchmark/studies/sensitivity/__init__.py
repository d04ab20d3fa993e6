"""The sensitivity study of Figure 3."""
