"""LeRobot checkpoint directories (`pretrained_model/`) -> Policy, with LeRobot's own model code.

`checkpoint.py` reads and checks the files and needs no LeRobot; `read.py` builds the Policy and does. One small
adapter per policy type holds what differs between them; none of them knows stages or splits.
"""
