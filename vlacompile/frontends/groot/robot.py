"""What a policy takes of one robot, and gives it: cameras and their frames, the instruction, numbers of state and
actions. Files are read into it, NVIDIA's and LeRobot's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from vlacompile.frontends.groot.frames import Geometry
from vlacompile.frontends.groot.groups import Group
from vlacompile.frontends.resize import Size
from vlart.errors import SourceError

Tokens = tuple[torch.Tensor, torch.Tensor]  # ids int64 [1,L], padding mask bool [1,L]


@dataclass(frozen=True)
class Robot:
    """cameras: (height, width) of each camera's frames, in the order of the prompt. formal: whether an instruction is
    lower-cased and loses its punctuation. processor: repository or directory of the backbone's tokenizer and image
    processor; named_by: where it is named. steps: of a chunk that are meaningful. moments: the observations whose
    frames the policy sees, 0 the newest, -1 the one before it. grip: the action whose sign opens or closes, if one is
    binarised."""

    cameras: Mapping[str, Size]
    geometry: Geometry
    formal: bool
    state: Sequence[Group]
    actions: Sequence[Group]
    steps: int
    processor: str
    named_by: str
    moments: tuple[int, ...] = (0,)
    grip: int | None = None

    @property
    def history(self) -> int:
        """How many observations it looks back over, the newest included."""
        return 1 - min(self.moments)

    def said(self, instruction: str) -> str:
        return formalised(instruction) if self.formal else instruction

    def prepared_sizes(self) -> list[Size]:
        """Of every image of the prompt, as the backbone's image processor gets it."""
        sizes = []
        for camera in self.cameras:
            height, width = self.geometry.prepare(torch.zeros(1, 3, *self.cameras[camera])).shape[-2:]
            sizes.append((height, width))
        return sizes * len(self.moments)

    def prepared(self, frames: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """frames: whole grey levels f32 [1,3,H,W] of each camera, of a history [1,n,3,H,W]. Returns the images of the
        prompt, by moment, then by camera."""
        at = {(moment, camera): frame if self.history == 1 else frame[:, moment - 1]
              for camera, frame in frames.items() for moment in set(self.moments)}
        ready = {key: self.geometry.prepare(frame) for key, frame in at.items()}
        return [ready[moment, camera] for moment in self.moments for camera in self.cameras]


def formalised(instruction: str) -> str:
    return re.sub(r"[^\w\s]", "", instruction.lower())


def padded(ids: Sequence[int], length: int, instruction: str, before: bool = False) -> Tokens:
    """The host's part of a prompt. before: whether padding comes before it. Raises SourceError."""
    if len(ids) > length:
        raise SourceError("the instruction is too long", where=repr(instruction),
                          why=f"with its part of the prompt it has {len(ids)} tokens of {length}",
                          fix="use a shorter instruction")
    rest = [0] * (length - len(ids))
    kept = torch.arange(length)[None] < len(ids)
    return torch.tensor([[*rest, *ids] if before else [*ids, *rest]]), kept.flip(-1) if before else kept
