"""X-VLA's own releases (2toINF) -> Policy: Florence 2's encoder and a transformer with prompts of its own for every
robot. The modules are LeRobot's, which has the same; no code of the checkpoint is executed.
"""
