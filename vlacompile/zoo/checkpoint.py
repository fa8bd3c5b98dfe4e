"""How a system's published weights are named, and which of the module's tensors they fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from vlacompile.frontends.lerobot.files import WEIGHTS, names_of_tensors
from vlacompile.frontends.tensor_files import INDEX, PICKLED, TensorFiles, fill, torch_file, weights_in
from vlacompile.policy.policy import Policy
from vlart.errors import SourceError

TORCH = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
COUNTED = "*num_batches_tracked"  # of batch norms: inference does not read it
USUAL = (WEIGHTS, INDEX, PICKLED, f"{PICKLED}.index.json", "*-of-*.safetensors", "*-of-*.bin")
Places = Mapping[str, tuple[str, ...]]


def tensor_files(path: Path) -> TensorFiles:
    """A file of safetensors, a directory of them, or a file of tensors that `torch.save` wrote. Raises SourceError."""
    if path.is_dir():
        _require_one(path)
        return weights_in(path)
    return weights_in(path.parent, path.name) if path.suffix == ".safetensors" else torch_file(path)


def _require_one(path: Path) -> None:
    """Raises SourceError for a directory in which it is not clear which file is meant."""
    files = sorted(f for f in path.iterdir() if f.is_file() or f.is_symlink())
    named = [n for n in (WEIGHTS, INDEX, PICKLED) if (path / n).is_file()]
    others = [f.name for f in files if f.suffix in TORCH]
    if others and not any(f.match(pattern) for f in files for pattern in USUAL):
        raise SourceError("the directory has no weights of the usual names", where=str(path),
                          why=f"it has {', '.join(others[:3])}", fix=f"give the file: --weights {path / others[0]}")
    if WEIGHTS in named:
        own = names_of_tensors(path / WEIGHTS)
        named += [f.name for f in files if f.name != WEIGHTS and f.is_file() and (
            f.suffix == ".ckpt" or (f.suffix == ".safetensors" and own & names_of_tensors(f)))]
    if len(named) > 1:
        raise SourceError("the directory has weights twice", where=str(path), why=f"it has {', '.join(named[:4])}",
                          fix="keep those that are meant alone" if INDEX in named else
                          f"give the file: --weights {path / named[0]}")


def is_torch(path: Path) -> bool:
    """Whether the name is that of what `tensor_files` reads; a checkpoint of another framework has others."""
    return any(path.glob("*.safetensors")) if path.is_dir() else path.suffix in TORCH


@dataclass(frozen=True)
class Checkpoint:
    """Weights by the names of the authors' checkpoint.

    names: {how names of the module's tensors begin: how they begin in the checkpoint}, the first that fits; "" fits
        all. places: instead of it, (module, files) -> {tensor of the module: those that it is joined from along the
        first dimension}.
    unread: patterns of names in the checkpoint that the policy has no use for.
    statistics: patterns of buffers that hold what no checkpoint has among its weights: statistics of the training data,
        ids of a prompt's fixed words. untrained: patterns of tensors that are a stand-in and stay random.
    files: opens what `--weights` names, for a module.
    host, asks: (policy, entries of statistics.json) -> the policy whose host decodes with them; what to write there. It
        raises KeyError, TypeError, ValueError or SourceError for entries that do not fit.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    places: Callable[[nn.Module, TensorFiles], Places] | None = None
    unread: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    files: Callable[[Path, Any], TensorFiles] = lambda path, module: tensor_files(path)
    host: Callable[[Policy, Mapping[str, Any]], Policy] | None = None
    asks: str = ""

    def named(self, name: str) -> str:
        """The name in the checkpoint of one of the module's tensors."""
        begin = next((b for b in self.names if name.startswith(b)), None)
        return name if begin is None else self.names[begin] + name[len(begin):]

    def statistics_of(self, module: nn.Module) -> list[str]:
        return [n for n, _ in module.named_buffers() if fits(n, self.statistics)]

    def fill(self, module: nn.Module, files: TensorFiles, weights: bool = True) -> None:
        """Gives the module its weights. weights: False only compares names and shapes. Raises SourceError for what is
        missing, has another shape, or is not read by the policy."""
        left = set(self.statistics_of(module))
        own = [n for n in module.state_dict() if n not in left and not fits(n, (*self.untrained, COUNTED))]
        found = {} if self.places is None else self.places(module, files)
        places = {n: found.get(n, (self.named(n),)) for n in own}
        fill(module, files, places, lambda n: fits(n, (*self.unread, COUNTED)), weights, own)


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
