"""Status of a device: its policies, their slots and their last changes. Takes no lock and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlacompile.deploy.device import Device, device_of
from vlacompile.deploy.ssh import Connection


@dataclass(frozen=True)
class Slot:
    """identity: hash of its content. passed: when its self-test last passed, ISO 8601; "" if never."""

    name: str
    identity: str
    passed: str
    current: bool


@dataclass(frozen=True)
class PolicyStatus:
    """history: the last changes, newest last. unit: systemd's state of its unit, "" if there is no systemd.
    release: the highest that was active, None before the first signed bundle."""

    name: str
    slots: tuple[Slot, ...]
    history: tuple[str, ...]
    unit: str = ""
    release: int | None = None


@dataclass(frozen=True)
class Status:
    """flashing: the current holder of the lock, or ""."""

    device: Device
    policies: tuple[PolicyStatus, ...] = field(default=())
    flashing: str = ""


def read_status(connection: Connection, board: str | None = None) -> Status:
    """Raises DeployError."""
    device = device_of(connection.host, connection.run("probe", ""), board)
    current: dict[str, str] = {}
    slots: dict[str, list[Slot]] = {}
    history: dict[str, list[str]] = {}
    units: dict[str, str] = {}
    releases: dict[str, int] = {}
    flashing = ""
    for key, value in connection.run("status"):
        if key == "flashing":
            flashing = value
            continue
        name, _, rest = value.partition(" ")
        if key == "policy":
            current[name] = rest
        elif key == "slot":
            letter, identity, passed = [*rest.split(" "), "", ""][:3]
            slots.setdefault(name, []).append(Slot(letter, identity, passed, current.get(name) == letter))
        elif key == "history":
            history.setdefault(name, []).append(rest)
        elif key == "unit":
            units[name] = rest
        elif key == "release":
            releases[name] = int(rest)
    policies = tuple(PolicyStatus(n, tuple(slots.get(n, ())), tuple(history.get(n, ())), units.get(n, ""),
                                  releases.get(n)) for n in current)
    return Status(device, policies, flashing)
