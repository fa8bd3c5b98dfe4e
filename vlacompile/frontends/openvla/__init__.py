"""Checkpoints of OpenVLA and OpenVLA-OFT -> Policy.

`settings.py` holds what no file says, `statistics.py` the numbers of the robot's data set, `model.py` the network,
`heads.py` what turns its features into actions, `read.py` builds the Policy. No code of the checkpoint is executed.
"""
