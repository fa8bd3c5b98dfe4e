"""SOURCE on the command line -> Policy: a checkpoint directory, an ONNX file, or `package.module:factory`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vlacompile.errors import SourceError, VlaError
from vlacompile.frontends.environments import ENVIRONMENTS, Environment

if TYPE_CHECKING:
    from vlacompile.policy.policy import Policy


Several = Mapping[str, "Policy | str | Path"]  # backbone: source


def parse_sources(texts: Sequence[str]) -> str | dict[str, str]:
    """SOURCE, or NAME=SOURCE for each backbone of a bundle with several. Raises SourceError."""
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    found: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not source or not name.isidentifier() or name in found or len(texts) == 1:
            raise SourceError(f'"{text}" names no backbone', where="SOURCE",
                              why="several policies for one bundle are given as "
                              "NAME=SOURCE each, with distinct names", fix="as light=SOURCE heavy=SOURCE")
        found[name] = source
    return found


def environment_for(source: str | Several, weights: bool = True) -> Environment | None:
    """The environment that must read this source because the current one cannot; None: the current one can.
    weights: whether they are needed. Raises SourceError for a checkpoint that no environment can read."""
    if isinstance(source, Mapping):
        needed = {e.name: e for s in source.values() if (e := environment_for(s, weights)) is not None}
        if len(needed) > 1:
            raise SourceError("these policies cannot be read together", where="SOURCE",
                              why="they need the environments "
                              + " and ".join(sorted(needed)), fix="combine policies that one environment reads")
        return next(iter(needed.values()), None)
    path = Path(source)
    if not (path / "config.json").is_file():
        return None
    reader = _reader(path)
    environment = ENVIRONMENTS[reader.__name__.split(".")[-2]]
    if environment.is_here():
        return None
    reader.open_checkpoint(path, weights)
    return environment


def check_source(source: str | Several) -> None:
    """Raises SourceError if the source cannot be a policy, without importing PyTorch."""
    for one in source.values() if isinstance(source, Mapping) else [source]:
        if not _is_factory(one):
            _check_path(Path(one))


def _is_factory(text: str) -> bool:
    return ":" in text and not Path(text).exists()


def _check_path(path: Path) -> None:
    if not path.exists():
        raise SourceError(f"{path} does not exist", where="SOURCE", why="no such file or directory",
                          fix="give a checkpoint directory, an .onnx file, or package.module:factory")
    if path.suffix != ".onnx" and not (path / "config.json").is_file():
        raise SourceError(f"{path} is not a readable checkpoint", where=str(path), why="it has no config.json",
                          fix="give the directory that the training wrote (…/pretrained_model), or "
                              "package.module:factory")


def _reader(path: Path) -> ModuleType:
    """The module that reads this checkpoint: LeRobot's configs have a "type", transformers' a "model_type"."""
    from vlacompile.frontends.huggingface import read as huggingface
    from vlacompile.frontends.lerobot import read as lerobot
    from vlacompile.frontends.lerobot.files import read_json

    config = read_json(path / "config.json")
    return huggingface if "model_type" in config and "type" not in config else lerobot


def load_policy(source: Policy | str | Path | Several, weights: bool = True) -> Policy:
    """Several policies are joined into one (policy/join_backbones.py). weights: False reads no weights and returns a
    policy whose weights have no content. Raises SourceError for a source that cannot be read or is of no known kind."""
    if isinstance(source, Mapping):
        from vlacompile.policy.join_backbones import join

        return join({name: load_policy(s, weights) for name, s in source.items()})
    if not isinstance(source, (str, Path)):
        return source
    if not weights:
        from vlacompile.compiler.capture.weightless import weightless

        with weightless():
            return _load(str(source), weights)
    return _load(str(source), weights)


def _load(text: str, weights: bool) -> Policy:
    if _is_factory(text):
        return _from_factory(text)
    return _from_checkpoint(Path(text), weights)


def _from_factory(text: str) -> Policy:
    from vlacompile.policy.policy import Policy  # here, so that a wrong path is rejected without importing PyTorch

    module_name, _, factory_name = text.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError) as error:
        raise SourceError(f'cannot import "{text}"', where="SOURCE", why=str(error),
                          fix="give package.module:factory, importable from the working directory") from error
    try:
        policy = factory()
    except VlaError:
        raise
    except Exception as error:  # user code; its traceback is kept as the cause
        raise SourceError(f'"{text}" failed', where=f"{module_name}.{factory_name}()",
                          why=f"{type(error).__name__}: {error}",
                          fix="call the factory in Python to see why") from error
    if not isinstance(policy, Policy):
        raise SourceError(f'"{text}" returned no Policy', where=f"{module_name}.{factory_name}()",
                          why=f"it returned a {type(policy).__name__}", fix="return vlacompile.Policy(...)")
    return policy


def _from_checkpoint(path: Path, weights: bool) -> Policy:
    _check_path(path)
    if path.suffix == ".onnx":
        from vlacompile.frontends.onnx.read import read_policy

        return read_policy(path)
    return _reader(path).read_policy(path, weights)
