"""vlacompile: compiler and small C runtime for vision-language-action policies.

The public API is what this file names; everything else may move.
"""

from vlacompile.bundle.bundle import Bundle, read_bundle as load
from vlacompile.errors import VlaError
from vlacompile.pipeline import build
from vlacompile.policy import Loop, Policy, Source
from vlacompile.runtime.session import Session
from vlacompile.verify.replay import verify

__all__ = ["Bundle", "Loop", "Policy", "Session", "Source", "VlaError", "build", "load", "verify"]
