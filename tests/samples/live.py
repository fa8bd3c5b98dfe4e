"""A policy beside its bundle: the same inputs through libvlart and through a fresh call in PyTorch, edges among
them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

import vlacompile as vc
from vlacompile.policy.policy import Policy, as_taken
from vlacompile.policy.sample_inputs import EDGES, edge


def worst(make: Callable[[], Policy], out: Path, *, target: str = "host", recipe: str | None = None, draws: int = 3,
          extra: tuple[Mapping[str, torch.Tensor], ...] = ()) -> float:
    """The largest difference of any output over all inputs, as a share of the largest number that PyTorch gives; floats
    drawn from N(0, 1). A policy is made anew for every call in PyTorch. extra: further inputs, beside the last drawn
    ones."""
    stand_in = target != "host"
    vc.build(make(), target=target, recipe=recipe, out=out)
    policy, rng, found = make(), np.random.default_rng(11), 0.0
    live = [n for n, s in policy.sources.items() if s.update != "static"]
    frames = [{n: _drawn(policy.example_inputs[n], rng) for n in live} for _ in range(draws)]
    frames += [frames[-1] | {n: edge(as_taken(t), k).to(t.dtype) for n, t in policy.example_inputs.items() if n in live}
               for k in range(EDGES)]
    frames += [frames[0] | dict(x) for x in extra]
    with vc.Session(out, stand_in=stand_in) as session:
        for inputs in frames:
            with torch.no_grad():
                want = make().infer(**{n: t.clone() for n, t in inputs.items()})
            for name, tensor in inputs.items():
                session.write(name, tensor)
            session.step()
            for name in policy.outputs:
                expected = want[name].double().numpy()
                assert np.isfinite(expected).all(), "PyTorch itself gives no number"
                apart = float(np.abs(session.read(name).astype(np.float64) - expected).max())
                found = max(found, apart / max(1.0, float(np.abs(expected).max())))
    return found


def _drawn(example: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    if example.is_floating_point():
        return torch.from_numpy(rng.standard_normal(tuple(example.shape))).to(example.dtype)
    if example.dtype is torch.bool:
        return torch.from_numpy(rng.random(tuple(example.shape)) < 0.5)
    high = 256 if example.dtype is torch.uint8 else int(as_taken(example).max()) + 1
    return torch.from_numpy(np.asarray(rng.integers(0, high, tuple(example.shape)))).to(example.dtype)
