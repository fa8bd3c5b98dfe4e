"""Rewrites of the traced graph, one per file. `graph_pass.py` says what a pass is and how to write one, `pass_list.py`
in which order they run, `pass_manager.py` runs and verifies them."""
