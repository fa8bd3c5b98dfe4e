"""Tiny policies of the datasets of lerobot_datasets.py: camera and state in, chunks of two-dimensional actions out."""

from __future__ import annotations

import torch

import vlacompile as vc
from tests.samples.lerobot_datasets import STATE, TASKS, TOP, picture
from tests.samples.small_tokenizers import word_piece

STEPS, EXECUTE = 4, 2
SEEN = vc.Source("observation")


def chunks() -> vc.Policy:
    """Action k of the chunk: state + 0.1 k + a little of the brightness and of the noise; two are executed."""
    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        light = inputs[TOP].float().mean((1, 2))[:, :2] / 255
        ahead = torch.arange(STEPS).float()[None, :, None] * 0.1
        return {"action": (inputs[STATE] + 0.1 * light)[:, None] + ahead + 0.01 * inputs["noise"]}

    return vc.Policy("chunks", observe, {TOP: SEEN, STATE: SEEN, "noise": vc.Source("step")}, {
        TOP: torch.full((1, *picture(0, 0).shape), 90, dtype=torch.uint8), STATE: torch.ones(1, 2),
        "noise": torch.randn(1, STEPS, 2, generator=torch.Generator().manual_seed(0))}, execute=EXECUTE)


def looking_back() -> vc.Policy:
    """The sum of three states; two actions of a chunk are executed."""
    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = (torch.tanh(inputs[STATE] * 0.1) * torch.tensor([1.0, 2.0, 4.0])[None, :, None]).sum(1)
        return {"action": seen[:, None] + torch.arange(STEPS).float()[None, :, None]}

    return vc.Policy("looking-back", observe, {STATE: vc.Source("observation", history=3)}, {
        STATE: torch.ones(1, 3, 2)}, execute=EXECUTE)


def told() -> vc.Policy:
    """The state, and how long the instruction is."""
    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"action": (inputs[STATE] + inputs["mask"].float().sum(1, keepdim=True))[:, None]}

    task = vc.Source("task")
    return vc.Policy("told", observe, {STATE: SEEN, "tokens": task, "mask": task}, {
        STATE: torch.ones(1, 2), "tokens": torch.zeros(1, 24, dtype=torch.int64),
        "mask": torch.zeros(1, 24, dtype=torch.bool)}, texts={
            "tokens": vc.Text(word_piece().to_str(), "mask", vc.Fit(pad=0), examples=TASKS)})


def spelled() -> vc.Policy:
    """The state is no source: the host writes it into the tokens, in tenths, behind the length of the instruction."""
    def observe(tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"action": (tokens[:, 1:] * mask[:, 1:] * 0.1 + tokens[:, :1])[:, None]}

    def encode(instruction: str, recorded) -> dict[str, torch.Tensor]:
        tenths = torch.from_numpy(recorded[STATE] * 10).round().long()
        return {"tokens": torch.cat([torch.tensor([len(instruction)]), tenths])[None],
                "mask": torch.ones(1, 3, dtype=torch.bool)}

    return vc.Policy("spelled", observe, {"tokens": SEEN, "mask": SEEN}, {
        "tokens": torch.tensor([[20, 10, 20]]), "mask": torch.ones(1, 3, dtype=torch.bool)},
        encoding=vc.HostEncoding(("tokens", "mask"), {STATE: (2,)}, encode))


def of_another_camera() -> vc.Policy:
    """Reads a camera and a state that the datasets lack."""
    wrist = "observation.images.wrist"
    return vc.Policy("wrist", lambda **inputs: {"action": inputs[wrist].float().mean((1, 2))[:, None, :2]},
                     {wrist: SEEN}, {wrist: torch.zeros(1, 8, 8, 3, dtype=torch.uint8)})
