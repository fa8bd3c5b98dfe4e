"""Bundles on devices: sent over ssh, self-tested there, and only then made current.

Tested against OpenSSH's sshd on the loopback interface of an x86-64 machine, with stand-ins for vlart-build and
systemctl. Nothing here has been run on a Jetson or has built an engine.
"""

ROOT = "~/.local/share/vlacompile"  # on a device, unless another is chosen
