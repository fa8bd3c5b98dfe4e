"""Which of several backbones carries out an instruction: fitted from evaluation logs, updated on the robot."""
