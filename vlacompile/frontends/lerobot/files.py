"""Names and reading of the files of a LeRobot checkpoint directory. Must not know what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vlart.errors import SourceError

WEIGHTS, PREPROCESSOR, POSTPROCESSOR = "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"
# Instead of the weights, if only an adapter was trained (PEFT)
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_POINTER = b"version https://git-lfs"
TRAINING = "train_config.json"  # configuration of the training; only used to infer the version
# Steps that only concern training or running a policy: batching, devices, tokens of recorded actions. The compiled
# policy's fixed shapes replace them.
HOST_STEPS = frozenset({"to_batch_processor", "device_processor", "action_tokenizer_processor"})
RELATIVE, ABSOLUTE = "relative_actions_processor", "absolute_actions_processor"


def read_json(path: Path, unique: bool = False) -> dict:
    """unique: a key that an object has twice is refused, instead of the last one taken. Raises SourceError."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")  # a pipe would be waited for without end
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once if unique else None)
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"the checkpoint's {path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, completely") from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'"{next(n for n in names if names.count(n) > 1)}" is there twice')
    return found


def read_tensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file whose names have one of the prefixes. Raises SourceError."""
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys() if k.startswith(prefixes)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def require_real(path: Path) -> None:
    """Raises SourceError for weights with complex numbers, by the file's header: where a real parameter is filled with
    them, PyTorch drops the imaginary parts."""
    try:
        with safe_open(path, "pt") as file:
            odd = next((k for k in file.keys() if file.get_slice(k).get_dtype().startswith("C")), None)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error
    if odd is not None:
        raise SourceError(f"{path.name} has complex numbers", where=f"{path}: {odd}",
                          why="the policy's weights are real; their imaginary parts would be dropped",
                          fix="use the file that the training wrote")


def names_of_tensors(path: Path) -> frozenset[str]:
    """Names of a safetensors file's tensors, from its header. Raises SourceError."""
    try:
        with safe_open(path, "pt") as file:
            return frozenset(file.keys())
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> SourceError:
    """Of a file with weights."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
    except OSError:
        pointer = False
    if pointer:
        return SourceError(f"{path.name} is a pointer of Git LFS", where=str(path),
                           why="the repository was cloned without the content of its large files",
                           fix="git lfs pull there; or give its name on the Hub, which downloads them")
    return SourceError(f"{path.name} cannot be read", where=str(path), why=str(error),
                       fix="copy the checkpoint again, completely")
