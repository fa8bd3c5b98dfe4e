"""Sensors and power mode of a Jetson through jetson-stats (`jtop`), where its service runs; else sysfs.

Both ways give the same figures, because jtop's service reads the files that jetson_sensors reads. jtop adds what needs
root there: the memory's clock (debugfs), loads, the name of the power mode, and the setting of mode and jetson_clocks.
It has no counts of throttling: these are read from sysfs in either case. jetson-stats (AGPL-3.0) is never required and
no part of a bundle; vlart-run, on devices without Python, reads sysfs in C. API: jetson-stats 7.2.2, the docstrings of
jtop/jtop.py. Not run on a board: the tests hold a double of that API.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlacompile.profile.jetson_sensors import Reading, read_sensors
from vlart.errors import ConfigError

JTOP, SYSFS = "jtop", "sysfs"
INTERVAL_S = 0.5  # of jtop's own readings; the one of another client that was there first wins
CHANGE_TURNS = 60  # readings in which a change of mode or clocks must show
INSTALL = "pip install 'vlacompile[jetson]', `sudo jtop --install-service`, then log in again"


class Sensors:
    """Calling it gives a Reading. source: "jtop" or "sysfs"; why: for sysfs, why not jtop. A jtop service that stops
    during a measurement leaves it to sysfs, and source says so."""

    def __init__(self, client: Any = None, why: str = "", root: Path = Path("/")) -> None:
        self._client, self.why, self._root = client, why, root
        self.source = SYSFS if client is None else JTOP

    def __call__(self) -> Reading:
        if self.source == JTOP:
            try:
                if self._client.ok(spin=True):
                    return reading_of(self._client, self._root)
                self.why = "jtop's service stopped"
            except _failures() as error:
                self.why = f"jtop's service stopped: {error}"
            self.source = SYSFS
        return read_sensors(self._root)

    @contextlib.contextmanager
    def power(self, mode: str | None = None, jetson_clocks: bool | None = None) -> Iterator[None]:
        """Within it the board has a power mode (a name of nvpmodel's, "MAXN_SUPER" or "maxn-super") and jetson_clocks
        on or off; None: as it is. What was changed is set back at the end, after an error too. Raises ConfigError if
        jtop does not run or the board does not follow; an error of setting back is a note of the body's own error."""
        if self.source != JTOP and (mode or jetson_clocks is not None):
            raise _refused("the power mode cannot be set here", self.why, INSTALL)
        undone = contextlib.ExitStack()
        try:
            if mode:
                undone.callback(_mode_change(self._client, mode))
            if jetson_clocks is not None:  # after the mode, whose highest clocks they are
                undone.callback(_clocks_change(self._client, jetson_clocks))
            yield
        except BaseException as error:
            try:
                undone.close()
            except ConfigError as second:
                error.add_note(f"and the board is not as it was before: {second}")
            raise
        undone.close()


@contextlib.contextmanager
def open_sensors(root: Path = Path("/")) -> Iterator[Sensors]:
    """jtop's where the package is installed and its service answers, else those of sysfs."""
    try:
        import jtop
    except ImportError:
        yield Sensors(None, "the package jetson-stats is not installed", root)
        return
    client = jtop.jtop(interval=INTERVAL_S)
    try:
        client.start()
    except (jtop.JtopException, OSError) as error:
        yield Sensors(None, "jtop's service does not answer: " + " ".join(str(error).split()), root)
        return
    try:
        yield Sensors(client, "", root)
    finally:
        client.close()


def reading_of(client: Any, root: Path = Path("/")) -> Reading:
    """A Reading of what a running jtop client has. Throttling is that of sysfs."""
    gpu = next(iter(client.gpu.values()), {})
    gpu_khz, emc_khz = gpu.get("freq", {}).get("cur"), client.memory.get("EMC", {}).get("cur")
    cpus = [khz for c in client.cpu["cpu"] if (khz := c.get("freq", {}).get("cur"))]
    idle, model, clocks = client.cpu["total"].get("idle"), client.nvpmodel, client.jetson_clocks
    return dataclasses.replace(
        read_sensors(root), gpu_mhz=_mhz(gpu_khz), emc_mhz=_mhz(emc_khz), cpu_mhz=_mhz(max(cpus, default=None)),
        celsius={n: t["temp"] for n, t in client.temperature.items()
                 if t["online"] and " " not in n},  # "nvme Composite" is no zone of the module
        watts=dict(_rails(client.power)), gpu_load=gpu.get("status", {}).get("load"),
        cpu_load=None if idle is None else 100.0 - idle, power_mode=None if model is None else model.id,
        power_mode_name=None if model is None else model.name,
        jetson_clocks=None if clocks is None else bool(clocks))


def _rails(power: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The total is one of the rails where it has a name, and jtop's own sum where not. power is truncated to mW, and
    volts and amperes are not."""
    total = power.get("tot", {})
    named = {total["name"]: total} if "name" in total else {}
    for name, rail in sorted({**power.get("rail", {}), **named}.items()):
        if rail.get("online", True):
            yield name, rail["volt"] * rail["curr"] / 1e6 if {"volt", "curr"} <= set(rail) else rail["power"] / 1e3


def _mhz(khz: float | None) -> float | None:
    return khz / 1e3 if khz else None


def _mode_change(client: Any, mode: str) -> Callable[[], None]:
    """Sets nvpmodel's mode; the function returned sets it back."""
    if client.nvpmodel is None:
        raise _refused("the power mode cannot be set here", "this board has no nvpmodel", "omit --power-mode")
    names, before = list(client.nvpmodel.models), client.nvpmodel.name
    found = [n for n in names if _plain(n) == _plain(mode)]
    if not found:
        raise _refused(f"the board has no power mode {mode!r}", "nvpmodel has others", f"one of {', '.join(names)}")

    def change(to: str) -> None:
        with _said(f"the power mode {to} cannot be set"):
            client.nvpmodel = to
            if not _follows(client, lambda: client.nvpmodel.name == to):
                raise _refused(f"the board does not take the power mode {to}",
                               f"it is still in {client.nvpmodel.name}; some changes need a reboot",
                               f"`sudo nvpmodel -m {names.index(to)}`, reboot if it asks for it, and measure again")
    if before == found[0]:
        return lambda: None
    return _changed(change, found[0], before)


def _clocks_change(client: Any, on: bool) -> Callable[[], None]:
    """Sets jetson_clocks; the function returned sets them back."""
    if client.jetson_clocks is None:
        raise _refused("jetson_clocks cannot be set here", "this board has no jetson_clocks", "omit --jetson-clocks")
    before = bool(client.jetson_clocks)

    def change(to: bool) -> None:
        with _said("jetson_clocks cannot be set"):
            client.jetson_clocks = to
            if not _follows(client, lambda: bool(client.jetson_clocks) == to):
                raise _refused(f"jetson_clocks do not go {'on' if to else 'off'}",
                               f"jtop's service says {client.jetson_clocks.status}",
                               f"`sudo jetson_clocks{'' if to else ' --restore'}`, and omit --jetson-clocks")
    return (lambda: None) if before == on else _changed(change, on, before)


def _changed(change: Callable[[Any], None], to: Any, before: Any) -> Callable[[], None]:
    """A change that is refused half-way is taken back at once."""
    try:
        change(to)
    except BaseException:
        with contextlib.suppress(ConfigError):
            change(before)
        raise
    return lambda: change(before)


def _follows(client: Any, reached: Callable[[], bool]) -> bool:
    """jtop hands a change to its service and returns: whether it shows within CHANGE_TURNS readings, each awaited by
    ok()."""
    return reached() or any(client.ok() and reached() for _ in range(CHANGE_TURNS))


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except _failures() as error:
        raise _refused(what, " ".join(str(error).split()), "see `jtop` and `systemctl status jtop`") from error


def _failures() -> tuple[type[Exception], ...]:
    from jtop import JtopException

    return JtopException, OSError, EOFError


def _refused(what: str, why: str, fix: str) -> ConfigError:
    return ConfigError(what, where="jtop of this machine", why=why, fix=fix)


def _plain(mode: str) -> str:
    return mode.lower().replace("_", "-")
