"""What an original answered on seeded inputs, with weights drawn from their names: written by record_<name>.py in the
environment of the original, read by tests of the zoo.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tests.samples.weights_by_name import weight
from vlacompile.frontends.tensor_files import TensorFiles

FOLDER = Path(__file__).parent


@torch.no_grad()
def fill(module: torch.nn.Module, named: Mapping[str, str] | None = None) -> torch.nn.Module:
    """The module with weights and statistics drawn from their names. named: {its name: the original's} of what begins
    with another name."""
    for name, tensor in module.state_dict().items():
        begin = next((b for b in named or {} if name.startswith(b)), "")
        name = (named or {}).get(begin, "") + name[len(begin):]
        if tensor.is_floating_point() and tensor.dim():  # a buffer without dimensions is a constant
            drawn = weight(name, tensor.shape)
            tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return module.eval()


def weight_of_flax(name: str, shape: Sequence[int]) -> torch.Tensor:
    """A kernel has its outputs last; of norms it is a vector."""
    drawn = weight(name, tuple(reversed(shape))).permute(*reversed(range(len(shape)))).contiguous()
    return drawn + float(name.endswith(("norm.kernel", "ln_f.kernel", ".scale")))


def drawn(where: str, shapes: Mapping[str, Sequence[int]], of=weight) -> TensorFiles:
    """A checkpoint whose tensors are drawn from their names."""
    return TensorFiles(Path(where), {n: lambda n=n, s=s: of(n, s) for n, s in shapes.items()},
                       {n: tuple(s) for n, s in shapes.items()})


def grey_levels(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def write(name: str, checkout: Path, output: torch.Tensor, **versions: str) -> None:
    """output: [...,D]"""
    commit = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True,
                            check=True).stdout.strip()
    found = {"commit": commit, "versions": {"torch": torch.__version__, "numpy": np.__version__} | versions,
             "shape": list(output.shape), "output": [float(f"{x:.7g}") for x in output.flatten().tolist()]}
    (FOLDER / f"{name}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


def read(name: str) -> np.ndarray:
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return np.array(found["output"], np.float32).reshape(found["shape"])
