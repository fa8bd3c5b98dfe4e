"""Bundles on devices: sent over ssh, proved there, and only then made current.

Tested against OpenSSH's sshd on the loopback of an x86-64 machine, with stand-ins for vlart-build and systemctl.
Nothing here was run on a Jetson, nor built an engine.
"""

ROOT = "~/.local/share/vlacompile"  # on a device, unless another is chosen
