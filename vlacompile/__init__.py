"""vlacompile: compiler and small C runtime for vision-language-action policies.

The public API is what this file names; everything else may move. The names are loaded when they
are first used, because most of them import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vlacompile import verify as _verify_package  # now: importing it later would hide the function
from vlacompile.errors import VlaError

if TYPE_CHECKING:
    from vlacompile.bundle.directory import Bundle
    from vlacompile.bundle.directory import read_bundle as load
    from vlacompile.phases.load_policy import load_policy
    from vlacompile.pipeline import build
    from vlacompile.policy.iterations import iterations
    from vlacompile.policy.join_backbones import join
    from vlacompile.policy.policy import Loop, Policy, Source
    from vlacompile.policy.text import Fit, Text
    from vlacompile.runtime.async_session import AsyncSession
    from vlacompile.runtime.lanes import Lanes
    from vlacompile.runtime.routed import RoutedSession
    from vlacompile.runtime.session import Session
    from vlacompile.verify.replay import verify

_HOMES = {
    "AsyncSession": ("vlacompile.runtime.async_session", "AsyncSession"),
    "Bundle": ("vlacompile.bundle.directory", "Bundle"),
    "Lanes": ("vlacompile.runtime.lanes", "Lanes"),
    "Fit": ("vlacompile.policy.text", "Fit"),
    "Loop": ("vlacompile.policy.policy", "Loop"),
    "Policy": ("vlacompile.policy.policy", "Policy"),
    "RoutedSession": ("vlacompile.runtime.routed", "RoutedSession"),
    "Session": ("vlacompile.runtime.session", "Session"),
    "Source": ("vlacompile.policy.policy", "Source"),
    "Text": ("vlacompile.policy.text", "Text"),
    "join": ("vlacompile.policy.join_backbones", "join"),
    "iterations": ("vlacompile.policy.iterations", "iterations"),
    "build": ("vlacompile.pipeline", "build"),
    "load_policy": ("vlacompile.phases.load_policy", "load_policy"),
    "load": ("vlacompile.bundle.directory", "read_bundle"),
    "verify": ("vlacompile.verify.replay", "verify"),
}

__all__ = ["AsyncSession", "Bundle", "Fit", "Lanes", "Loop", "Policy", "RoutedSession", "Session", "Source",
           "Text", "VlaError",
           "build", "iterations", "join", "load", "load_policy", "verify"]

del _verify_package, globals()["verify"]  # the name belongs to the function; the package stays importable


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
