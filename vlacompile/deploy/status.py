"""Status of a device: its policies, their slots and their last changes. Takes no lock and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vlacompile.deploy.device import Device, device_of
from vlacompile.deploy.ssh import Connection

MOST_BYTES = 16 << 30  # of all slots of a device


@dataclass(frozen=True)
class Slot:
    """identity: hash of its content. passed: when its self-test last passed, ISO 8601; "" if never. damaged: the first
    thing in it that is not as it was filled, of a slot that has passed or is current."""

    name: str
    identity: str
    passed: str
    current: bool
    damaged: str = ""


@dataclass(frozen=True)
class PolicyStatus:
    """history: the last changes, newest last. unit: systemd's state of its unit, "" if there is no systemd.
    release: the highest that was active, None before the first signed bundle. damaged: "current", where that is no link
    to a slot, and "release", where no number is in it."""

    name: str
    slots: tuple[Slot, ...]
    history: tuple[str, ...]
    unit: str = ""
    release: int | None = None
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """flashing: the current holder of the lock, or ""."""

    device: Device
    policies: tuple[PolicyStatus, ...] = field(default=())
    flashing: str = ""


def read_status(connection: Connection, board: str | None = None, whole: bool = False) -> Status:
    """whole: every file of the slots is read again; otherwise names, kinds and modes are compared. Raises DeployError.
    """
    device = device_of(connection.host, connection.run("probe", ""), board)
    current: dict[str, str] = {}
    slots: dict[str, list[Slot]] = {}
    history: dict[str, list[str]] = {}
    units: dict[str, str] = {}
    releases: dict[str, int] = {}
    damaged: dict[str, dict[str, str]] = {}
    flashing = ""
    for key, value in connection.run("status", "whole" if whole else "", work_bytes=MOST_BYTES if whole else 0):
        if key == "flashing":
            flashing = value
            continue
        name, _, rest = value.partition(" ")
        if key == "policy":
            current[name] = rest
        elif key == "slot":
            letter, identity, passed = [*rest.split(" "), "", ""][:3]
            slots.setdefault(name, []).append(Slot(letter, identity, passed, current.get(name) == letter))
        elif key == "damaged":
            what, _, file = rest.partition(" ")
            damaged.setdefault(name, {})[what] = file
        elif key == "history":
            history.setdefault(name, []).append(rest)
        elif key == "unit":
            units[name] = rest
        elif key == "release":
            releases[name] = int(rest)
    policies = tuple(_policy(n, slots.get(n, []), history.get(n, []), units.get(n, ""), releases.get(n),
                             damaged.get(n, {})) for n in current)
    return Status(device, policies, flashing)


def _policy(name: str, slots: list[Slot], history: list[str], unit: str, release: int | None,
            damaged: dict[str, str]) -> PolicyStatus:
    return PolicyStatus(name, tuple(replace(s, damaged=damaged.get(s.name, "")) for s in slots), tuple(history), unit,
                        release, tuple(k for k in ("current", "release") if k in damaged))
