"""Weight files of a checkpoint, whole or in shards, read one tensor at a time.

Safetensors files, and PyTorch's own, of which only tensors are unpickled. Must not know models.
"""

from __future__ import annotations

import errno
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vlacompile.frontends.lerobot.files import read_json, unreadable
from vlart.errors import SourceError

INDEX = "model.safetensors.index.json"
STATE = "state_dict"
PICKLED = "pytorch_model.bin"  # what transformers wrote before safetensors, and accelerate still does when asked
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|bin)")
_AGAIN = "copy the checkpoint again, completely"

Shape = tuple[int, ...]


class TensorFiles:
    """shapes: {name: shape} of all tensors. where: the directory, or the file."""

    def __init__(self, where: Path, readers: Mapping[str, Callable[[], torch.Tensor]], shapes: Mapping[str, Shape]):
        self.where, self.shapes, self._readers = where, dict(shapes), dict(readers)

    def read(self, name: str) -> torch.Tensor:
        """Raises SourceError, also for a tensor without real numbers: a conversion to fp32 would drop the rest."""
        try:
            tensor = self._readers[name]()
        except (OSError, SafetensorError) as error:
            raise unreadable(self.where, error) from error
        if tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided:
            kind = "on the device meta" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
            raise SourceError(f"{name} is no dense tensor of real numbers", where=str(self.where), why=f"it is {kind}",
                              fix=_AGAIN)
        return tensor

    def under(self, renamed: Callable[[str], str]) -> TensorFiles:
        """The same with other names."""
        names = {name: renamed(name) for name in self.shapes}
        return TensorFiles(self.where, {names[n]: r for n, r in self._readers.items()},
                           {names[n]: s for n, s in self.shapes.items()})

    def changed(self, change: Callable[[str], tuple[str, Callable[[torch.Tensor], torch.Tensor]]]) -> TensorFiles:
        """The same with other names and layouts. change: name -> (its new name, tensor -> tensor)."""
        readers, shapes = {}, {}
        for name, shape in self.shapes.items():
            new, laid_out = change(name)
            readers[new] = lambda name=name, laid_out=laid_out: laid_out(self.read(name))
            shapes[new] = tuple(laid_out(torch.empty(shape, device="meta")).shape)
        return TensorFiles(self.where, readers, shapes)

    def instead(self, other: TensorFiles, dropped: str) -> TensorFiles:
        """These without the names that begin so, and the other's."""
        readers, shapes = ({n: x for n, x in own.items() if not n.startswith(dropped)}
                           for own in (self._readers, self.shapes))
        return TensorFiles(self.where, readers | other._readers, shapes | other.shapes)


def weights_in(path: Path, whole: str = "model.safetensors") -> TensorFiles:
    """The weights in a directory: one file, or the shards that the index or their numbers name; safetensors if there
    are any, else PyTorch's own. Raises SourceError."""
    files, indexed, index = _files(path, whole)
    shapes: dict[str, Shape] = {}
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    for file in files:
        found = _safetensors(file) if file.suffix == ".safetensors" else torch_file(file)
        lacks = [n for n, shard in indexed.items() if shard == file.name and n not in found.shapes]
        if lacks:
            raise SourceError(f"{file.name} lacks {lacks[0]}", where=str(index), why="the index says that this "
                              "file has it; the files are of different checkpoints", fix=_AGAIN)
        shapes |= found.shapes
        readers |= found._readers
    return TensorFiles(path, readers, shapes)


def _safetensors(file: Path) -> TensorFiles:
    try:
        opened = safe_open(file, "pt")
        shapes = {n: tuple(opened.get_slice(n).get_shape()) for n in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise unreadable(file, error) from error
    return TensorFiles(file, {n: lambda n=n: opened.get_tensor(n) for n in shapes}, shapes)


def _files(path: Path, whole: str) -> tuple[list[Path], dict[str, str], Path]:
    """The files, {tensor: name of its file} of the index, and the index."""
    for name, index in ((whole, path / INDEX), (PICKLED, path / f"{PICKLED}.index.json")):
        require_target(path / name)
        if (path / name).is_file():
            return [path / name], {}, index
        if index.is_file():
            indexed = _indexed(index)
            return _all_there(path, sorted(set(indexed.values()))), indexed, index
        numbered = sorted(f.name for f in path.glob(f"*{Path(name).suffix}") if _SHARD.fullmatch(f.name))
        if numbered:
            stem, _, count, ending = _SHARD.fullmatch(numbered[0]).groups()  # type: ignore[union-attr]
            names = [f"{stem}-{i:05}-of-{count}.{ending}" for i in range(1, int(count) + 1)]
            return _all_there(path, names), {}, index
    raise SourceError("the checkpoint has no weights", where=str(path),
                      why=f"there is neither {whole} nor {INDEX} nor {PICKLED}",
                      fix="give the complete directory that the training wrote")


def require_target(path: Path) -> None:
    """Raises SourceError for a symbolic link that leads to no file."""
    if path.is_symlink() and not path.exists():
        try:
            path.stat()
        except OSError as error:
            why = "it leads back to itself" if error.errno == errno.ELOOP else f"there is no {path.readlink()}"
            raise SourceError(f"{path.name} is a symbolic link to no file", where=str(path), why=why,
                              fix="copy the file itself") from error


def _indexed(index: Path) -> dict[str, str]:
    indexed = read_json(index).get("weight_map")
    if not isinstance(indexed, dict) or not indexed or not all(isinstance(f, str) and Path(f).name == f
                                                               for f in indexed.values()):
        raise SourceError(f"{index.name} names no files", where=str(index), why='it has no "weight_map" of {tensor: '
                          "file}", fix=_AGAIN)
    return indexed


def _all_there(path: Path, names: list[str]) -> list[Path]:
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise SourceError(f"{missing[0]} is missing", where=str(path),
                          why=f"the weights are in {len(names)} files, of which {len(missing)} are not there",
                          fix=_AGAIN)
    return [path / name for name in names]


def torch_file(path: Path, under: str | None = None) -> TensorFiles:
    """The tensors of a file that `torch.save` wrote, mapped where its format allows; nothing else in it is unpickled.
    under: the key of the state dict, beside what else a training saves. Raises SourceError."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")  # a pipe would be waited for without end
        with warnings.catch_warnings():  # of a protocol that torch.save does not write: what counts is what comes out
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise SourceError(f"{path.name} cannot be read", where=str(path), why=f"{type(error).__name__}: {_said(error)}",
                          fix="copy it again; a file that would run code is not read: where it is trusted, load it and "
                              "save its state dict as safetensors") from error
    if under is None and isinstance(content, dict) and isinstance(content.get(STATE), dict):
        under = STATE  # of a training, beside its settings
    if under is not None:
        content = content.get(under) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not all(isinstance(n, str) and isinstance(t, torch.Tensor)
                                                for n, t in content.items()):
        raise SourceError(f"{path.name} is no state dict", where=str(path), why="it has more than named tensors",
                          fix="give the file that the training wrote")
    # of a model that was trained on several devices
    tensors = {n.removeprefix("module."): t for n, t in content.items()}
    if len(tensors) < len(content):
        twice = next(n for n in content if f"module.{n}" in content)
        raise SourceError(f"{path.name} has {twice} twice", where=str(path), why="with and without the prefix module.",
                          fix="give the file that the training wrote")
    return TensorFiles(path, {n: lambda t=t: t for n, t in tensors.items()},
                       {n: tuple(t.shape) for n, t in tensors.items()})


def _said(error: Exception) -> str:
    """What is wrong, in one sentence: PyTorch gives advice before and behind it."""
    lines = str(error).strip().splitlines() or [""]
    line = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
    return line.strip().partition(". ")[0][:160]


def fill(module: nn.Module, files: TensorFiles, places: Mapping[str, tuple[str, ...]] | None = None,
         unused: Callable[[str], bool] = lambda name: False, weights: bool = True,
         filled: Sequence[str] | None = None) -> None:
    """Gives the module its weights, in fp32. places: {parameter: names of the tensors that it is joined from}; others
    have their own name. unused: tensors that inference does not read. weights: False only compares names and shapes.
    filled: the module's tensors that the files have; None: all.
    Raises SourceError if one is missing, unknown, has another shape, is not of floats, or is not finite."""
    state = module.state_dict()
    own = {name: tuple(state[name].shape) for name in (state if filled is None else filled)}
    names = {name: (places or {}).get(name, (name,)) for name in own}
    needed = {n for parts in names.values() for n in parts}
    missing = sorted(needed - set(files.shapes))
    extra = sorted(n for n in set(files.shapes) - needed if not unused(n))
    if missing or extra:
        raise SourceError("the weights are not those of this model", where=str(files.where),
                          why=f"{len(missing)} missing, {len(extra)} unknown: "
                              + ", ".join([*missing[:2], *extra[:2]]),
                          fix="use the files of one training")
    for name, shape in own.items():
        found = _joined([files.shapes[n] for n in names[name]])
        if _without_ones(found) != _without_ones(shape):
            others = f", with {len(names[name]) - 1} more" if len(names[name]) > 1 else ""
            raise SourceError(f"{names[name][0]} has the shape {list(files.shapes[names[name][0]])}",
                              where=str(files.where), why=f"the other weights and the configuration make it "
                              f"{list(shape)}{others}", fix="use the files of one training")
    if weights:
        floats = {name for name in own if state[name].is_floating_point()}
        del state  # each tensor is released as it is replaced
        for name, parts in names.items():
            read = [_numbers(files, n, name in floats) for n in parts]
            _replace(module, name, (torch.cat(read) if len(read) > 1 else read[0]).reshape(own[name]))
    module.eval().requires_grad_(False)


def _numbers(files: TensorFiles, name: str, floats: bool) -> torch.Tensor:
    """A tensor in fp32. floats: integers and bools would be another scale of what the module computes with."""
    tensor = files.read(name)
    if floats and not tensor.is_floating_point():
        raise SourceError(f"{name} is of {str(tensor.dtype).removeprefix('torch.')}", where=str(files.where),
                          why="the model computes with real numbers there", fix="give the weights as floats; "
                          "quantized ones after they are scaled back")
    tensor = tensor.to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        count = int((~torch.isfinite(tensor)).sum())
        raise SourceError(f"{name} is not finite", where=str(files.where),
                          why=f"{count} of {tensor.numel()} numbers are NaN or infinite in fp32",
                          fix="use weights from before the training diverged")
    return tensor


def _replace(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    owner, _, own = name.rpartition(".")
    part = module.get_submodule(owner)
    setattr(part, own, nn.Parameter(tensor) if own in dict(part.named_parameters(recurse=False)) else tensor)


def _joined(shapes: list[Shape]) -> Shape:
    """Of tensors that are concatenated along the first dimension."""
    return shapes[0] if len(shapes) == 1 else (sum(s[0] for s in shapes), *shapes[0][1:])


def _without_ones(shape: Shape) -> Shape:
    """Without leading dimensions of 1, by which libraries differ."""
    return _without_ones(shape[1:]) if shape[:1] == (1,) else shape
