"""SOURCE on the command line -> Policy: a checkpoint directory, the name of one on the Hugging Face Hub, an ONNX file,
`zoo:NAME`, or `package.module:factory`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlacompile.frontends import hub
from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.environments import Environment
from vlacompile.frontends.recognise import is_checkpoint, reader_of
from vlacompile.phases.phase import Progress, silent
from vlacompile.zoo.names import is_zoo
from vlacompile.zoo.names import parse as zoo_name
from vlart.errors import SourceError, VlaError

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


def fetch_sources(source: Policy | str | Path | Several, weights: bool = True, progress: Progress = silent,
                  options: CheckpointOptions = NONE) -> Any:
    """The same source with its names on the Hub replaced by directories of the cache, into which what is missing was
    downloaded. An existing path wins over a name. weights: False downloads none, unless statistics are among them.
    Raises SourceError, for a checkpoint that cannot be read before its weights are downloaded."""
    if isinstance(source, Mapping):
        return {name: fetch_sources(s, weights, progress, options) for name, s in source.items()}
    name = hub.HubName.parse(source) if isinstance(source, str) else None
    if name is None:
        return source
    if Path(str(source)).exists():
        progress(f"take the path {source}, not a name on the Hub")
        return f"./{source}"
    return str(hub.fetch(name, lambda path: _needs_weights(path, weights, progress, options), progress))


def hub_revisions(source: Policy | str | Path | Several) -> dict[str, str]:
    """{backbone, or "" for a single source: "org/name@commit"} of the sources that came from the Hub."""
    sources = source if isinstance(source, Mapping) else {"": source}
    found = {key: hub.name_of(Path(s)) for key, s in sources.items() if isinstance(s, (str, Path))}
    return {key: str(name) for key, name in found.items() if name is not None}


def _needs_weights(path: Path, wanted: bool, progress: Progress, options: CheckpointOptions) -> bool:
    """For a directory without its weights. Raises SourceError if no frontend reads it, or its environment is not
    installed."""
    if not is_checkpoint(path):
        raise _no_checkpoint(path)
    if reason := needed_weights(path, options):
        if not wanted:
            progress(f"the weights are needed: {reason}")
        return True
    able = reader_of(path).environments_for(path, False, options)
    if able and not any(e.is_here() or e.is_installed() for e in able):
        able[0].require()
    return wanted


def needed_weights(path: Path, options: CheckpointOptions = NONE) -> str:
    """Why a checkpoint cannot be read without its weights, not even for its stages; "" if it can. Raises SourceError if
    no frontend reads it."""
    return reader_of(path).needed_weights(path, options)


def _no_checkpoint(path: Path) -> SourceError:
    """For a directory of the cache without config.json; checkpoints in folders below it are named."""
    name = hub.name_of(path) or path
    below = sorted(p.parent.relative_to(path).as_posix() for p in path.rglob("config.json")) if path.exists() else []
    return SourceError(f"{name} is not a readable checkpoint", where=str(path),
                       why="it has no config.json" + (f" except in {', '.join(below[:3])}" if below else ""),
                       fix=f"`hf download {getattr(name, 'repository', name)} --include '{below[0]}/*'`, and give that "
                           "directory" if below else "give the name of a repository with a LeRobot or transformers "
                                                     "checkpoint")


def environment_for(source: str | Several, weights: bool = True,
                    options: CheckpointOptions = NONE) -> Environment | None:
    """The environment that must read this source because the current one cannot; None: the current one can.
    weights: whether they are needed. Raises SourceError for a checkpoint that no environment can read."""
    if isinstance(source, Mapping):
        needed = {e.name: e for s in source.values() if (e := environment_for(s, weights, options)) is not None}
        if len(needed) > 1:
            raise SourceError("these policies cannot be read together", where="SOURCE",
                              why="they need the environments "
                              + " and ".join(sorted(needed)), fix="combine policies that one environment reads")
        return next(iter(needed.values()), None)
    path = Path(source)
    if not is_checkpoint(path):
        return None
    able = reader_of(path).environments_for(path, weights, options)
    if not able or any(e.is_here() for e in able):  # an empty tuple: a frontend that needs none
        return None
    return next((e for e in able if e.is_installed()), able[0])


def check_source(source: str | Several) -> None:
    """Raises SourceError if the source cannot be a policy, without importing PyTorch. A name on the Hub may be one."""
    for one in source.values() if isinstance(source, Mapping) else [source]:
        if is_zoo(str(one)) and not Path(one).exists():
            zoo_name(str(one))
        elif not _is_factory(one) and (Path(one).exists() or hub.HubName.parse(one) is None):
            _check_path(Path(one))


def _is_factory(text: str) -> bool:
    return ":" in text and not Path(text).exists()


def _check_path(path: Path) -> None:
    if not path.exists():
        raise SourceError(f"{path} does not exist", where="SOURCE", why="no such file or directory",
                          fix="give a checkpoint directory, org/name on the Hugging Face Hub, an .onnx file, "
                              "zoo:NAME, or package.module:factory")
    if path.suffix != ".onnx" and not is_checkpoint(path):
        raise SourceError(f"{path} is not a readable checkpoint", where=str(path), why="it has no config.json",
                          fix="give the directory that the training wrote (…/pretrained_model), or "
                              "package.module:factory")


def load_policy(source: Policy | str | Path | Several, weights: bool = True,
                options: CheckpointOptions = NONE) -> Policy:
    """Several policies are joined into one (policy/join_backbones.py). weights: False reads no weights and returns a
    policy whose weights have no content. options: of a checkpoint. Raises SourceError for a source that cannot be read
    or is of no known kind."""
    source = fetch_sources(source, weights, options=options)
    if isinstance(source, Mapping):
        from vlacompile.policy.join_backbones import join

        return join({name: load_policy(s, weights, options) for name, s in source.items()})
    if not isinstance(source, (str, Path)):
        options.require_none("a Policy")
        return source
    if not weights:
        from vlacompile.compiler.capture.weightless import weightless

        with weightless():
            return _load(str(source), weights, options)
    from vlacompile.compiler.capture.mapped_weights import map_weights, mapped_weights
    from vlacompile.compiler.capture.modules import modules_of

    with mapped_weights():
        policy = _load(str(source), weights, options)
    map_weights(modules_of(*policy.functions).values())
    return policy


def _load(text: str, weights: bool, options: CheckpointOptions) -> Policy:
    if is_zoo(text) and not Path(text).exists():
        from vlacompile.zoo import catalogue

        options.require_only(text, "weights")
        return catalogue.load(text, options.weights)
    if _is_factory(text):
        options.require_none(text)
        return _from_factory(text)
    return _from_checkpoint(Path(text), weights, options)


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


def _from_checkpoint(path: Path, weights: bool, options: CheckpointOptions) -> Policy:
    _check_path(path)
    if path.suffix == ".onnx":
        from vlacompile.frontends.onnx.read import read_policy

        options.require_none(str(path))
        return read_policy(path)
    return reader_of(path).read_policy(path, weights, options)
