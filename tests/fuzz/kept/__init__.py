"""Shrunk policies that once showed a fault, by its kind. First line: how they are built, `target recipe`."""
