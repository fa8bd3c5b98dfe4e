"""Rewrites of the traced graph, one per file. Their order is in `vlacompile/pipeline.py` alone."""
