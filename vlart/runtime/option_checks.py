"""Options of a session: what is taken, as libvlart takes it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from vlart.errors import ConfigError, nearest

ACCEPT = {"not finite": 1, "out of range": 2, "stale": 4, "denormal": 8}


def device_name(name: Any) -> bytes:
    if not isinstance(name, str) or not name.isascii() or not name.isprintable() or not name:
        raise ConfigError(f"openvino_device is {name!r}", where="Session", why="it is the name of a device of OpenVINO",
                          fix='give "CPU", "GPU" or "NPU"')
    return name.encode()


def microseconds(name: str, ms: float) -> int:
    if not isinstance(ms, (int, float, np.number)) or not 0 <= ms < math.inf:
        raise ConfigError(f"{name} is {ms}", where="Session", why="it is a time, in milliseconds; 0: none",
                          fix="give a number that is not negative")
    return round(1000 * ms)


def accepted_faults(accept: Iterable[str]) -> int:
    words = tuple(accept) if isinstance(accept, Iterable) else (accept,)
    for word in words:
        if not isinstance(word, str) or word not in ACCEPT:
            raise ConfigError(f'a session cannot accept "{word}"', where="Session(accept=...)",
                              why=nearest(word, ACCEPT),
                              fix=f"choose from {', '.join(ACCEPT)}")
    return sum({ACCEPT[w] for w in words})
