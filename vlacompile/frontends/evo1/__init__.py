"""Evo-1's own releases (MINT-SJTU) -> Policy.

`settings.py` holds what no file says, `statistics.py` the numbers of the robot's data set, `model.py` the network,
`read.py` builds the Policy. No code of the checkpoint is executed.
"""
