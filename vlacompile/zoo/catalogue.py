"""`zoo:NAME` and `zoo:NAME@tiny`: which systems there are, and their policies with random weights.

NAME is that of a module in `systems`, with the name of a variant after a dash: `octo`, `octo-base`.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from vlacompile.policy.policy import Policy
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.names import REAL, dashed, module_names, module_of, parse, unknown
from vlacompile.zoo.system import System
from vlacompile.zoo.weights import load_weights
from vlart.errors import SourceError

NOISE = 0.1  # standard deviation added to a parameter whose elements are all equal


@dataclass(frozen=True)
class Entry:
    """name: as after `zoo:`, of the default variant without it. variant: "" for a system with one version."""

    name: str
    module: str
    variant: str
    system: System


def entries() -> list[Entry]:
    """Every variant of every system, in the order of the survey."""
    found = [e for module in module_names() for e in entries_of(module)]
    return sorted(found, key=lambda e: e.system.number)


def find(name: str) -> Entry:
    """name: without the size. Raises SourceError, which names the closest one."""
    found = entries_of(module_of(name))
    entry = next((e for e in found if name in (e.name, f"{dashed(e.module)}-{e.variant}")), None)
    if entry is None:
        raise unknown(name, [e.name for e in found])
    return entry


def load(source: str, weights: str | None = None) -> Policy:
    """The policy of `zoo:NAME[@SIZE]`; SIZE is "real" unless it is given. weights: a file or directory of trained ones;
    None: random. Raises SourceError."""
    name, given = parse(source)
    entry, size = find(name), given or REAL
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = entry.system.make(entry.variant, size)
        if isinstance(policy.observe, nn.Module):
            policy.observe.requires_grad_(False).eval()
            if weights is None:
                _randomise(policy.observe)
    told = weights
    if weights is not None:
        if not isinstance(policy.observe, nn.Module):
            raise SourceError(f"{entry.name} takes no weights", where=f"SOURCE {source}",
                              why="it is several models in one, each with a checkpoint of its own",
                              fix="build one of them: `vlacompile zoo` lists them")
        checkpoint = _checkpoint(entry.system, source)
        policy = load_weights(policy, policy.observe, checkpoint, entry.system.title, Path(weights))
        told = "; random: ".join([weights, *checkpoint.untrained])
    origin = _origin(entry, size) | ({"weights": told} if told is not None else {})
    return dataclasses.replace(policy, name=f"{entry.name}@{size}" if given else entry.name,
                               origin=origin | policy.origin)


def entries_of(module: str) -> list[Entry]:
    """The variants of one system, the default first."""
    system = importlib.import_module(f"{__package__}.systems.{module}").SYSTEM
    return [Entry(dashed(module) + (f"-{variant}" if i else ""), module, variant, system)
            for i, variant in enumerate(system.variants or ("",))]


def _checkpoint(system: System, source: str) -> Checkpoint:
    """Raises SourceError for a system whose module has no published weights."""
    if system.checkpoint is None:
        why = f"the authors' weights ({system.weights}) are not read: {system.unread}" if system.unread else \
            "its authors have published none"
        raise SourceError(f"there are no trained weights for {system.title} here", where=f"SOURCE {source}", why=why,
                          fix="leave --weights out, or write a factory that returns vlacompile.Policy(...) around the "
                              "model that you have")
    return system.checkpoint


def _origin(entry: Entry, size: str) -> dict[str, str]:
    kind = "reconstruction from" if entry.system.is_reconstruction else "written from"
    known = {"architecture": f"{kind} {entry.system.architecture}", "weights": "random",
             "size": f"{size}" + ("" if size == REAL else ": small widths, every structural constant kept")}
    return known | {f"assumption {i}": text for i, text in enumerate(entry.system.assumptions, 1)}


def _randomise(module: nn.Module) -> None:
    """Weights as random as the parity of a system needs: matrices keep the size of their input (PyTorch's own shrink it
    from layer to layer, until actions hardly depend on the observation), and what begins as a constant (gains, biases,
    gates at zero) gets noise, so that nothing is exact by chance: a residual with a zero gate would be folded away, and
    a modulation by zero never compared."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)) and not isinstance(part.weight, FakeTensor):
            part.weight.normal_(0.0, part.weight[0].numel() ** -0.5)
    for parameter in module.parameters():
        if not isinstance(parameter, FakeTensor) and bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype) * NOISE)
