"""What passes share: patterns of ops, and how single ops are rewritten. No module here is a pass."""
