"""The LIBERO-Goal pair as policies: raw frames, token ids and joint state in, robot actions out.

    vlacompile build examples.libero_goal.policy:light --recipe libero-goal -o light.vlab
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import vlacompile as vc
from examples.libero_goal import recordings
from examples.libero_goal.encoders import LANGUAGE_ENCODERS, ImageEncoder, tokenize
from examples.libero_goal.head import CAMERAS, CHUNK, PREDICTED, FusionHead
from vlart.errors import SourceError

CHECKPOINTS = Path(__file__).parent / "checkpoints"
ACTION_DIM = 7
TOKENS, MASK, STATE = "observation.language.tokens", "observation.language.attention_mask", "observation.state"
IMAGES = {camera: f"observation.images.{camera}" for camera in CAMERAS}


class LateFusionPolicy(nn.Module):
    """The complete inference function of one member ("light": MiniLM, "heavy": SmolLM2).

    inputs: the two images uint8 [1,128,128,3], state f32 [1,9], token ids int64 [1,16] and their padding mask
    bool [1,16]. Returns {"action": f32 [1,50,7]} in [-1, 1]: OSC_POSE deltas and gripper (its sign
    counts: negative opens the gripper).
    """

    def __init__(self, member: str):
        super().__init__()
        self.image_encoder = ImageEncoder()
        self.language_encoder = LANGUAGE_ENCODERS[member]()
        self.head = FusionHead(self.image_encoder.width, self.language_encoder.width)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        features = [self.image_encoder(inputs[IMAGES[camera]]) for camera in CAMERAS]
        words = self.language_encoder(inputs[TOKENS], inputs[MASK])
        predicted = self.head(features, words, inputs[MASK], inputs[STATE]).clamp(-1.0, 1.0)
        zero = torch.zeros(1, CHUNK, 1)
        columns = [predicted[..., PREDICTED.index(i), None] if i in PREDICTED else zero for i in range(ACTION_DIM)]
        return {"action": torch.cat(columns, -1)}


def checkpoint(member: str) -> Path:
    return CHECKPOINTS / f"{member}.safetensors"


def build_module(member: str, allow_untrained: bool = False) -> LateFusionPolicy:
    """The module with its trained head. Without a checkpoint: SourceError, or with `allow_untrained` a head with seeded
    random weights (for tests that do not depend on behaviour)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = LateFusionPolicy(member)
    path = checkpoint(member)
    if path.is_file():
        from safetensors.torch import load_file

        module.head.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    elif not allow_untrained:
        raise SourceError(f"the {member} member has no checkpoint", where=str(path), why="it has not been trained",
                          fix=f"python -m examples.libero_goal.train --member {member}")
    return module.requires_grad_(False).eval()


def example_inputs(member: str) -> dict[str, torch.Tensor]:
    """The first recorded observation: real frames, so that golden vectors resemble the robot's inputs."""
    return inputs_of(member, recordings.load()[0])


def calibration(member: str, stride: int = 2) -> tuple[dict[str, torch.Tensor], ...]:
    """Every `stride`-th recorded observation, of all recorded episodes: the calibration set."""
    return tuple(inputs_of(member, row) for row in recordings.load()[::stride])


def inputs_of(member: str, row: recordings.Recording) -> dict[str, torch.Tensor]:
    tokens, mask = tokenize(member, row.instruction)
    images = {IMAGES[camera]: torch.from_numpy(image)[None] for camera, image in row.images.items()}
    return {TOKENS: tokens, MASK: mask, **images, STATE: torch.from_numpy(row.state)[None]}


def _policy(member: str, allow_untrained: bool = False) -> vc.Policy:
    task, frame = vc.Source("task"), vc.Source("observation", clock=20.0)
    sources = {TOKENS: task, MASK: task, **dict.fromkeys(IMAGES.values(), frame), STATE: frame}
    return vc.Policy(f"libero_goal_{member}", build_module(member, allow_untrained), sources, example_inputs(member),
                     calibration=calibration(member), texts={TOKENS: instruction_text(member)})


def instruction_text(member: str) -> vc.Text:
    """The member's own tokenizer; an instruction that is too long is refused."""
    known = tuple(dict.fromkeys(row.instruction for row in recordings.load()))
    return vc.Text(LANGUAGE_ENCODERS[member].tokenizer().to_str(), MASK, vc.Fit(pad=0), examples=known)


def recipe_of(mode: str) -> str:
    """The shipped recipe of the pair for "fp32", "fp16", "int8", "int4" or "auto"."""
    return "libero-goal" if mode == "fp32" else f"libero-goal-{mode}"


def light() -> vc.Policy:
    """The policy with MiniLM-L6 as the language encoder (22.7 M parameters)."""
    return _policy("light")


def heavy() -> vc.Policy:
    """The policy with SmolLM2-135M-Instruct as the language encoder."""
    return _policy("heavy")
