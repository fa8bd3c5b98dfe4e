"""Checkpoints of openpi (Physical Intelligence), in PyTorch: pi0 and pi0.5 -> Policy.

`files.py` recognises them, `settings.py` and `robots.py` hold what no file says, `model.py` is the network, `read.py`
builds the Policy. openpi's own code is not needed.
"""
