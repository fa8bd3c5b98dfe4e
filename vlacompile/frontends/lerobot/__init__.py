"""LeRobot checkpoint directories (`pretrained_model/`) -> Policy, with LeRobot's own model code.

`checkpoint.py` reads and checks the files without LeRobot; `read.py` builds the Policy with it. One small adapter per
policy type holds the differences between them; none of them knows stages or splits.
"""
