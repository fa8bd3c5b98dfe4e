"""What evaluation drives: a policy that is told an instruction and then answers observations."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

import vlacompile as vc
from examples.libero_goal.encoders import tokenize
from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS, build_module
from examples.libero_goal.scene import CLOSE, OPEN

EXECUTE = 10  # h: of the predicted actions, how many are executed per replan


def command(predicted: np.ndarray) -> np.ndarray:
    """A predicted action [7] as the robot gets it: of the gripper's only the sign counts."""
    return np.array([*predicted[:6], CLOSE if predicted[6] > 0 else OPEN], float)


class Engine(Protocol):
    def reset(self, text: str) -> None:
        """A new episode with this instruction."""

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        """{camera: uint8 [128,128,3]}, f32 [9] -> actions f32 [50,7]."""


class TorchEngine:
    """The original module, eager, one thread."""

    def __init__(self, member: str):
        torch.set_num_threads(1)
        self.member, self.module = member, build_module(member)
        self._words: dict[str, torch.Tensor] = {}

    def reset(self, text: str) -> None:
        ids, mask = tokenize(self.member, text)
        self._words = {TOKENS: ids, MASK: mask}

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        frames = {IMAGES[c]: torch.from_numpy(image)[None] for c, image in images.items()}
        with torch.no_grad():
            return self.module(**self._words, **frames, **{STATE: torch.from_numpy(state)[None]})["action"][0].numpy()


class BundleEngine:
    """A compiled bundle through libvlart, one thread: the path of the C program."""

    def __init__(self, member: str, path: Path):
        self.member, self.session = member, vc.Session(path, threads=1)

    def reset(self, text: str) -> None:
        ids, mask = tokenize(self.member, text)
        self.session.write(TOKENS, ids)
        self.session.write(MASK, mask)

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        for camera, image in images.items():
            self.session.write(IMAGES[camera], image[None])
        self.session.write(STATE, state[None])
        self.session.step()
        return self.session.read("action")[0]


def open_engine(member: str, engine: str) -> Engine:
    """engine: "torch", or the path of a bundle."""
    return TorchEngine(member) if engine == "torch" else BundleEngine(member, Path(engine))
