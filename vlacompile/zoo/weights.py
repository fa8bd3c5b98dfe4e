"""Trained weights for a system of the zoo: by the names of the authors' checkpoint, all of them or none.

What un-normalises actions is no weight: `statistics.json` beside the weights has it, {buffer: numbers}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.tensor_files import require_target
from vlacompile.policy.policy import Policy
from vlacompile.zoo.checkpoint import Checkpoint
from vlart.errors import SourceError

STATISTICS = "statistics.json"
SPREADS = ("std", "range")  # how the names of buffers end that are widths of the training data


def load_weights(policy: Policy, module: nn.Module, checkpoint: Checkpoint, title: str, path: Path) -> Policy:
    """module: the policy's, which gets its weights. title: of the system. Raises SourceError for what is missing, has
    another shape, or is not read."""
    require_target(path)
    if not path.exists():
        raise SourceError(f"{path} does not exist", where="--weights", why="no such file or directory",
                          fix="give the file or directory of the weights")
    files = checkpoint.files(path, module)
    checkpoint.fill(module, files, weights=False)
    names, where = checkpoint.statistics_of(module), (path if path.is_dir() else path.parent) / STATISTICS
    found = _found(names, checkpoint.asks, title, where) if names or checkpoint.host else {}
    unknown = sorted(set(found) - set(names) - set(re.findall(r'"(\w+)":', checkpoint.asks)))
    if unknown:
        raise SourceError(f"{STATISTICS} has an unknown {unknown[0]}", where=str(where), why=f"{title} has "
                          + (", ".join(names) or "others"), fix="leave it out, or correct its name")
    statistics = {name: _numbers(module.get_buffer(name), name, found, where) for name in names}
    for low, high in _pairs(names):
        if bool((statistics[low] > statistics[high]).any()):
            raise SourceError(f"{low} is above {high}", where=str(where), why="a range goes from low to high",
                              fix="give the numbers of the training data")
    if checkpoint.host is not None:
        try:
            policy = checkpoint.host(policy, found)
        except (KeyError, TypeError, ValueError, SourceError) as error:
            raise SourceError(f"{STATISTICS} does not fit", where=str(where), why=f"{type(error).__name__}: {error}",
                              fix=f"write {checkpoint.asks}") from error
    checkpoint.fill(module, files)
    for name, numbers in statistics.items():
        module.get_buffer(name).copy_(numbers)
    return policy


def _found(names: list[str], asks: str, title: str, where: Path) -> dict[str, Any]:
    if not where.is_file():
        example = ", ".join([*(f'"{n}": [...]' for n in names), *([asks] if asks else [])])
        raise SourceError("the statistics of the training data are missing", where=str(where),
                          why=f"{title} un-normalises with them, and no weight holds them",
                          fix=f"write {STATISTICS}: {{{example}}}")
    return read_json(where, unique=True)


def _pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    """Of names: the lower ends of ranges, each with its upper end."""
    for below, above in (("low", "high"), ("min", "max"), ("q01", "q99")):
        for name in names:
            if name.endswith(below) and name.removesuffix(below) + above in names:
                yield name, name.removesuffix(below) + above


def _numbers(buffer: torch.Tensor, name: str, found: dict[str, Any], where: Path) -> torch.Tensor:
    shape = tuple(buffer.shape)
    try:
        kind = bool if buffer.dtype == torch.bool else (int, float) if buffer.is_floating_point() else int
        odd = next((n for n in _flat(found[name]) if not isinstance(n, kind)
                    or isinstance(n, bool) != (kind is bool)), None)
        if odd is not None:
            raise TypeError(f"{odd!r:.40} is no {str(buffer.dtype).removeprefix('torch.')}")
        numbers = torch.tensor(found[name], dtype=buffer.dtype)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise SourceError(f"{STATISTICS} has no {name}", where=str(where), why=f"{type(error).__name__}: {error}",
                          fix=f"give {list(shape)} numbers") from error
    if tuple(numbers.shape) != shape or not bool(torch.isfinite(numbers.float()).all()):
        raise SourceError(f"{name} does not fit", where=str(where),
                          why=f"it has {list(numbers.shape)} numbers, all of which must be finite",
                          fix=f"give {list(shape)} numbers")
    if name.endswith(SPREADS) and not bool((numbers > 0).all()):
        raise SourceError(f"{name} has {float(numbers.min()):g}", where=str(where),
                          why="it is a spread, by which inputs are divided or outputs multiplied",
                          fix="give the positive numbers of the training data")
    return numbers


def _flat(value: object) -> list[object]:
    return [n for part in value for n in _flat(part)] if isinstance(value, list) else [value]
