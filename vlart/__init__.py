"""vlart: runs bundles (NAME.vlab) by libvlart, and serves them. Needs neither PyTorch nor the compiler.

The public API is what this file names, and the same names of `vlacompile`; everything else may move. They are loaded
when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "AsyncSession": ("vlart.runtime.async_session", "AsyncSession"),
    "Bundle": ("vlart.bundle.directory", "Bundle"),
    "Camera": ("vlart.runtime.camera", "Camera"),
    "Lanes": ("vlart.runtime.lanes", "Lanes"),
    "Recorder": ("vlart.runtime.recorder", "Recorder"),
    "RoutedSession": ("vlart.runtime.routed", "RoutedSession"),
    "Session": ("vlart.runtime.session", "Session"),
    "Threads": ("vlart.runtime.threads", "Threads"),
    "VlaError": ("vlart.errors", "VlaError"),
    "load": ("vlart.bundle.directory", "read_bundle"),
    "require_signed": ("vlart.bundle.signature", "require_signed"),
    "sign": ("vlart.bundle.signature", "sign"),
}

__all__ = ["AsyncSession", "Bundle", "Camera", "Lanes", "Recorder", "RoutedSession", "Session", "Threads", "VlaError",
           "load", "require_signed", "sign"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
