"""A small policy with a camera, as bundles that differ in how actions are consumed or in a weight, and drives of it
that are recorded."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import vlacompile as vc
from vlart.errors import RuntimeFailure

H, EXECUTE, DIM = 8, 4, 3
CAMERA, STATE, TOKENS = "observation.images.wrist", "observation.state", "tokens"
CONSUME = {"queue": f"execute = {EXECUTE}", "realtime": f"execute = {EXECUTE}\ndelay = 2\nmax_guidance = 0",
           "ensemble": ""}


class Seeing(nn.Module):
    """Camera and state -> H actions of DIM numbers, in two stages."""

    def __init__(self, gain: float):
        super().__init__()
        torch.manual_seed(0)
        self.eye, self.head = nn.Linear(6 * 8 * 3, 32), nn.Linear(32 + DIM, H * DIM)
        self.words = nn.Embedding(20, 32)
        self.gain = gain

    def forward(self, **inputs):
        seen = torch.tanh(self.eye(inputs[CAMERA].float().flatten(1) / 255 * self.gain))
        context = seen + self.words(inputs[TOKENS]).mean(1)
        return {"action": self.head(torch.cat([context, inputs[STATE]], -1)).tanh().reshape(1, H, DIM)}


def built(folder: Path, consume: str = "queue", gain: float = 1.0, recipe: str = "") -> Path:
    """recipe: more lines of it."""
    name = f"{consume}-{gain:g}"
    policy = vc.Policy("seeing", Seeing(gain).eval(),
                       {TOKENS: vc.Source("task"), CAMERA: vc.Source("observation"), STATE: vc.Source("observation")},
                       {TOKENS: torch.zeros(1, 2, dtype=torch.int64), STATE: torch.rand(1, DIM),
                        CAMERA: torch.randint(0, 256, (1, 6, 8, 3), dtype=torch.uint8)})
    path = folder / f"{name}.toml"
    path.write_text(f'name = "r"\ndescription = "r"\n[stages]\nmin_flops = 0\n[action]\nconsume = "{consume}"\n'
                    f"{CONSUME[consume]}\n{recipe}")
    return vc.build(policy, recipe=str(path), out=folder / f"{name}.vlab").path


def observation(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {CAMERA: rng.integers(0, 256, (1, 6, 8, 3), dtype=np.uint8), STATE: rng.random((1, DIM), np.float32)}


def tokens(task: int) -> np.ndarray:
    return np.array([[task % 10, task % 10 + 1]], np.int64)


def drive(session: vc.Session, episodes: int = 2, replans: int = 4, seed: int = 0, execute: int = EXECUTE,
          period: float = 0.0) -> None:
    """Episodes of a task each, of which some observations repeat the last one's camera."""
    rng = np.random.default_rng(seed)
    for episode in range(episodes):
        session.reset()
        session.write(TOKENS, tokens(episode))
        for k in range(replans):
            seen = observation(rng)
            for name, array in seen.items():
                if k != 1 or name != CAMERA:
                    session.write(name, array)
            session.step()
            for _ in range(execute):
                time.sleep(period)
                session.pop()


def drive_async(session: vc.AsyncSession, ticks: int = 120, seed: int = 0, period: float = 2e-4) -> None:
    """A control loop, with another episode in the middle, another instruction, and cancelled chunks."""
    rng = np.random.default_rng(seed)
    session.write(TOKENS, tokens(0))
    for tick in range(ticks):
        if tick == ticks // 2:
            session.cancel("episode")
        if tick % 37 == 20:
            session.cancel("keep")
            session.write(TOKENS, tokens(tick % 5))
        if session.info().due or tick % 37 == 20:
            for name, array in observation(rng).items():
                session.write(name, array)
            session.request()
        try:
            session.pop()
        except RuntimeFailure as failure:
            assert failure.status == "QUEUE_EMPTY"
        time.sleep(period)
