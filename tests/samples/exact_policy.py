"""A small policy whose arithmetic is exact, so that every processor gives the same bits, and what is recorded of it:
`python -m tests.samples.exact_policy DIR` writes a recording of a session, of asynchronous control and of lanes.
"""

from __future__ import annotations

import gzip
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

import vlacompile as vc
from vlart.errors import RuntimeFailure

H, EXECUTE, DIM = 4, 2, 3
CAMERA, STATE, TOKENS = "observation.images.wrist", "observation.state", "tokens"
RECORDINGS = ("session", "async", "lanes")
LANE = f'[[lane]]\nname = "slow"\nsources = ["{TOKENS}", "{CAMERA}"]\nclock_hz = 8\nmax_age_ms = 60000\n'


class Exact(nn.Module):
    """Weights are small integers, and so are the inputs but for the state, which counts eighths: every sum is a number
    that f32 holds."""

    def __init__(self):
        super().__init__()
        self.eye, self.head = nn.Linear(6 * 8 * 3, 4, bias=False), nn.Linear(4 + DIM, H * DIM, bias=False)
        self.words = nn.Embedding(20, 4)
        for k, weight in enumerate(self.parameters()):
            weight.data = (torch.arange(weight.numel()).reshape(weight.shape) * (7 + 2 * k) % 5 - 2).float()

    def forward(self, **inputs):
        seen = self.eye(inputs[CAMERA].float().flatten(1)) + self.words(inputs[TOKENS]).sum(1)
        return {"action": (self.head(torch.cat([seen, inputs[STATE] * 8], -1)) / 2 ** 20).reshape(1, H, DIM)}


def built(folder: Path, lanes: bool = False) -> Path:
    name = "laned" if lanes else "one"
    policy = vc.Policy("exact", Exact().eval(),
                       {TOKENS: vc.Source("task"), CAMERA: vc.Source("observation", 8.0),
                        STATE: vc.Source("observation", 50.0)},
                       {TOKENS: torch.zeros(1, 2, dtype=torch.int64), STATE: torch.zeros(1, DIM),
                        CAMERA: torch.zeros(1, 6, 8, 3, dtype=torch.uint8)})
    recipe = folder / f"{name}.toml"
    recipe.write_text('name = "r"\ndescription = "r"\n[stages]\nmin_flops = 0\n[action]\nconsume = "queue"\n'
                      f"execute = {EXECUTE}\n{LANE if lanes else ''}")
    return vc.build(policy, recipe=str(recipe), out=folder / f"{name}.vlab").path


def observed(k: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(k)
    return {CAMERA: rng.integers(0, 256, (1, 6, 8, 3), dtype=np.uint8),
            STATE: rng.integers(-8, 9, (1, DIM)).astype(np.float32) / 8}


def tokens(k: int) -> np.ndarray:
    return np.array([[k % 10, k % 10 + 1]], np.int64)


def _session(bundle: Path, recorder) -> None:
    with vc.Session(bundle, record=recorder) as session:
        for k in range(6):
            if k % 3 == 0:
                session.reset()
                session.write(TOKENS, tokens(k))
            for name, array in observed(k).items():
                session.write(name, array)
            session.step()
            for _ in range(EXECUTE):
                session.pop()


def _async(bundle: Path, recorder) -> None:
    with vc.AsyncSession(bundle, record=recorder) as session:
        session.begin({TOKENS: tokens(0), **observed(0)})
        for k in range(16):
            if k == 8:
                session.cancel("episode")
                session.begin({TOKENS: tokens(1), **observed(k)})
            elif session.info().due:
                session.write_all(observed(k))
                session.request()
            session.pop()
            while session.info().busy:
                time.sleep(1e-4)


def _lanes(bundle: Path, recorder) -> None:
    with vc.Lanes(bundle, threads=1, record=recorder) as lanes:
        for k in range(8):
            seen = observed(k)
            if k == 4:
                lanes.reset()
                with suppress(RuntimeFailure):  # CANCELLED: this is how the lane learns of it
                    lanes["slow"].step()
            if k % 2 == 0:
                lanes["slow"].write(TOKENS, tokens(k // 4))
                lanes["slow"].write(CAMERA, seen[CAMERA])
                lanes["slow"].step()
            lanes.control.write(STATE, seen[STATE])
            lanes.control.step()
            lanes.control.pop()


def main(folder: Path) -> None:
    drives = {"session": _session, "async": _async, "lanes": _lanes}
    for name in RECORDINGS:
        with vc.Recorder(path := folder / f"{name}.vlog", mib=1 / 16) as recorder:
            drives[name](built(folder, name == "lanes") if name != "async" else folder / "one.vlab", recorder)
        (folder / f"{name}.vlog.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
