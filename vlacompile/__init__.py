"""vlacompile: compiler and small C runtime for vision-language-action policies.

The public API is what this file names; everything else may move. The names are loaded when they
are first used, because most of them import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlacompile.phases.load_policy import load_policy
    from vlacompile.pipeline import build
    from vlacompile.policy.carried import Carried
    from vlacompile.policy.drawn_from import drawn_from
    from vlacompile.policy.host_encoding import HostEncoding
    from vlacompile.policy.iterate import iterate
    from vlacompile.policy.iterations import iterations
    from vlacompile.policy.join_backbones import join
    from vlacompile.policy.policy import Loop, Policy, Source
    from vlacompile.policy.text import Fit, Text
    from vlart.bundle.directory import Bundle
    from vlart.bundle.directory import read_bundle as load
    from vlart.bundle.signature import require_signed, sign
    from vlart.errors import VlaError
    from vlart.runtime.async_session import AsyncSession
    from vlart.runtime.camera import Camera
    from vlart.runtime.lanes import Lanes
    from vlart.runtime.recorder import Recorder
    from vlart.runtime.routed import RoutedSession
    from vlart.runtime.session import Session
    from vlart.runtime.threads import Threads
    from vlart.verify.replay import verify

_HOMES = {
    "AsyncSession": ("vlart.runtime.async_session", "AsyncSession"),
    "Bundle": ("vlart.bundle.directory", "Bundle"),
    "Carried": ("vlacompile.policy.carried", "Carried"),
    "HostEncoding": ("vlacompile.policy.host_encoding", "HostEncoding"),
    "Camera": ("vlart.runtime.camera", "Camera"),
    "Lanes": ("vlart.runtime.lanes", "Lanes"),
    "Fit": ("vlacompile.policy.text", "Fit"),
    "Loop": ("vlacompile.policy.policy", "Loop"),
    "Policy": ("vlacompile.policy.policy", "Policy"),
    "Recorder": ("vlart.runtime.recorder", "Recorder"),
    "RoutedSession": ("vlart.runtime.routed", "RoutedSession"),
    "Session": ("vlart.runtime.session", "Session"),
    "Source": ("vlacompile.policy.policy", "Source"),
    "Text": ("vlacompile.policy.text", "Text"),
    "Threads": ("vlart.runtime.threads", "Threads"),
    "join": ("vlacompile.policy.join_backbones", "join"),
    "drawn_from": ("vlacompile.policy.drawn_from", "drawn_from"),
    "iterate": ("vlacompile.policy.iterate", "iterate"),
    "iterations": ("vlacompile.policy.iterations", "iterations"),
    "build": ("vlacompile.pipeline", "build"),
    "load_policy": ("vlacompile.phases.load_policy", "load_policy"),
    "VlaError": ("vlart.errors", "VlaError"),
    "load": ("vlart.bundle.directory", "read_bundle"),
    "require_signed": ("vlart.bundle.signature", "require_signed"),
    "sign": ("vlart.bundle.signature", "sign"),
    "verify": ("vlart.verify.replay", "verify"),
}

__all__ = ["AsyncSession", "Bundle", "Camera", "Carried", "Fit", "HostEncoding", "Lanes", "Loop", "Policy",
           "Recorder", "RoutedSession", "Session", "Source", "Text", "Threads", "VlaError", "build", "drawn_from",
           "iterate", "iterations", "join", "load", "load_policy", "require_signed", "sign", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
