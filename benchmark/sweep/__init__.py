"""A plan's runs, what the store lacks of them, and how they are trained into it."""
