"""Chooses one of several backbones per instruction: fitted on evaluation logs, updated on the robot."""
