"""NVIDIA's GR00T policies: what its versions share, and the checkpoints that NVIDIA's own code writes.

`lerobot/groot.py` and `lerobot/groot_n17.py` read the same models from LeRobot's checkpoints; what they compute is
here. The model classes are LeRobot's own (N1.5: 0.4.4; N1.7: 0.6.1).
"""
