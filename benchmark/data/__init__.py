"""The small data set that ships with the package."""
