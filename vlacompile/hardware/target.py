"""Targets: the hardware that a bundle is compiled for. `targets/*.toml` -> frozen dataclasses; every fact has a source.

A board's file holds its facts and power modes; NAME@MODE+SOFTWARE chooses one mode and one of
`targets/software/*.toml`. Its rates and launch costs follow from these (board_cost_model.py).
"""

from __future__ import annotations

import math
import platform
import re
from dataclasses import asdict, dataclass, field

from vlacompile.files.toml import load_toml, shipped
from vlacompile.hardware.board import Board, Mode, Software, check_board
from vlacompile.hardware.board_cost_model import BOARD_FACTORS, modelled_launch, modelled_rates
from vlacompile.hardware.cost_model import Launch, Rates, SchemeRates
from vlart.errors import ConfigError, nearest
from vlart.vocabulary import BACKENDS, SCHEMES

SOFTWARE = "targets/software"
PROCESSORS = ("x86_64", "aarch64")
ENGINES = ("onnxruntime", "tensorrt")  # other engines run the stages that a recipe assigns to them
__all__ = ["Launch", "Rates", "SchemeRates", "Target", "load_target"]


@dataclass(frozen=True)
class Target:
    """board, power, software: of a board; None for a machine without such facts. power: the power mode it runs in.
    processor: "x86_64" or "aarch64"."""

    name: str
    description: str
    backend: str
    launch: Launch
    rates: Rates | None = None
    board: Board | None = None
    power: Mode | None = None
    software: Software | None = None
    processor: str = platform.machine()


@dataclass(frozen=True)
class _File:
    """A target file. A board has modes, and neither launch nor rates. processor: None: that of this machine, of a board
    aarch64."""

    name: str
    description: str
    backend: str
    launch: Launch | None = None
    rates: Rates | None = None
    board: Board | None = None
    mode: tuple[Mode, ...] = field(default=())
    default_mode: str | None = None
    default_software: str | None = None
    processor: str | None = None


_SELECTION = re.compile(r"(?P<file>.*?)(?:@(?P<mode>[^@+/\\]+))?(?:\+(?P<software>[^@+/\\]+))?")


def load_target(name_or_path: str) -> Target:
    """A shipped target by name, or a .toml file; for a board also NAME@MODE, NAME+SOFTWARE or NAME@MODE+SOFTWARE, e.g.
    "orin-nano-8gb@15w+jetpack-7.2". Raises ConfigError."""
    chosen = _SELECTION.fullmatch(name_or_path)
    assert chosen is not None, "every string matches"
    file = load_toml(_File, chosen["file"], "targets", "target")
    where = f'target "{file.name}"'
    known = [name for name in BACKENDS if name in ENGINES]
    if file.backend not in known:
        raise ConfigError(f'backend "{file.backend}" does not exist', where=where,
                          why=nearest(file.backend, known), fix="choose one of the known backends")
    if file.processor not in (None, *PROCESSORS):
        raise ConfigError(f'processor "{file.processor}" does not exist', where=where,
                          why=nearest(file.processor, PROCESSORS), fix=f"choose one of: {', '.join(PROCESSORS)}")
    if file.board is not None:
        return _on_board(file, file.board, chosen["mode"], chosen["software"], where)
    if chosen["mode"] or chosen["software"]:
        raise ConfigError(f'"{name_or_path}" has no modes to choose from', where=where,
                          why="only a board has power modes and software", fix=f'write "{chosen["file"]}"')
    odd = [k for k in ("mode", "default_mode", "default_software") if getattr(file, k)]
    if odd or file.launch is None:
        raise ConfigError(f'key "{odd[0]}" belongs to a board' if odd else 'key "launch" is missing', where=where,
                          why="there is no [board]", fix="describe the board, or remove it" if odd else "add [launch]")
    _check_rates(file.rates, where)
    return Target(file.name, file.description, file.backend, file.launch, file.rates,
                  processor=file.processor or platform.machine())


def modes_of(name: str) -> tuple[Mode, ...]:
    """All power modes of a target; empty if it is not a board."""
    return load_toml(_File, name, "targets", "target").mode


def _on_board(file: _File, board: Board, mode: str | None, software: str | None, where: str) -> Target:
    if file.launch is not None or file.rates is not None:
        raise ConfigError("a board has [launch] or [rates]", where=where, why="a board's are derived from its facts",
                          fix="remove them")
    check_board(board, file.mode, where)
    modes = {m.name: m for m in file.mode}
    name, package = mode or file.default_mode, software or file.default_software
    for key, given in (("mode", name), ("software", package)):
        if given is None:
            raise ConfigError(f'key "default_{key}" is missing', where=where, why=f"and no {key} was chosen",
                              fix=f'add it, or choose one, e.g. "{file.name}@{file.mode[0].name}+jetpack-6.2"')
    assert name is not None and package is not None
    if name not in modes:
        raise ConfigError(f'no mode is called "{name}"', where=where, why=nearest(name, modes),
                          fix=f"choose one of: {', '.join(modes)}")
    power = modes[name]
    found, factor = _software(package, where), BOARD_FACTORS.get(file.name, 1.0)
    if board.gpu.compute_capability not in found.compute_capabilities:
        raise ConfigError(f"{found.name} is not for {board.module}", where=where,
                          why=f"the GPU is sm_{board.gpu.compute_capability}; it is for "
                              + ", ".join(f"sm_{c}" for c in found.compute_capabilities),
                          fix=f'choose "{file.name}+{file.default_software}"')
    return Target(f"{file.name}@{power.name}+{found.name}", file.description, file.backend,
                  modelled_launch(board, power, factor), modelled_rates(board, power, factor), board, power, found,
                  file.processor or "aarch64")


def _software(name: str, where: str) -> Software:
    known = shipped(SOFTWARE)
    if name not in known:
        raise ConfigError(f'no software is called "{name}"', where=where, why=nearest(name, known),
                          fix=f"choose one of: {', '.join(known)}")
    found = load_toml(Software, str(known[name]), SOFTWARE)
    if not 0 < found.context_mb < math.inf or not found.source.strip() or not found.context_source.strip():
        raise ConfigError(f"context_mb = {found.context_mb}, or a source is empty", where=str(known[name]),
                          why="every fact is positive and has a source", fix="correct the file")
    return found


def _check_rates(rates: Rates | None, where: str) -> None:
    for scheme in SCHEMES:
        found = getattr(rates, scheme, None)
        for key, rate in asdict(found).items() if found else ():
            if rate is not None and not (0 < rate < math.inf or (rate == 0 and key == "call_us")):
                raise ConfigError(f"rates.{scheme}.{key} = {rate}", where=where,
                                  why="a rate is positive and finite", fix="measure it, or omit the key")
