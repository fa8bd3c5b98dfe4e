"""PaliGemma, whose prefix of images and text attends both ways: its published sizes, and openpi's policies on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openpi.model import UNUSED, FlowPolicy, GemmaSizes, Sizes, gelu, places
from vlacompile.frontends.openpi.read import weight_files
from vlacompile.frontends.openpi.robots import from_internal, to_internal
from vlacompile.frontends.openpi.settings import Settings, settings_of
from vlacompile.frontends.transformer import added
from vlacompile.frontends.vision_transformer import VisionSizes
from vlacompile.policy.iterate import iterate
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.paligemma import END
from vlacompile.zoo.blocks.statistics import Bounds, Moments
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY

VOCABULARY, ACTIONS, EPSILON = 257152, 32, 1e-6
SIGLIP = VisionSizes(1152, 27, 16, 4304, 14, 224, final=True, activation=gelu)
GEMMA_2B, GEMMA_300M = GemmaSizes(2048, 18, 8, 256, 16384, None), GemmaSizes(1024, 18, 8, 256, 4096, None)
SMALL_SIGLIP = replace(SIGLIP, width=32, depth=2, heads=4, hidden=64, side=28)
SMALL_GEMMA, SMALL_EXPERT = GemmaSizes(32, 2, 4, 8, 64, None), GemmaSizes(16, 2, 4, 8, 32, None)
SMALL_VOCABULARY, SMALL_PROMPT = 400, 20
OPENPI = Checkpoint(places=places, unread=tuple(sorted(UNUSED)),
                    statistics=("state_statistics.*", "action_statistics.*"),
                    files=lambda path, module: weight_files(path))


def pixels(image: torch.Tensor) -> torch.Tensor:
    """u8 [1,H,W,3] -> f32 [1,3,H,W] in [-1, 1]"""
    return image.permute(0, 3, 1, 2).to(torch.float32) / 255.0 * 2.0 - 1.0


def openpi_sizes(kind: str, size: str) -> Sizes:
    """kind: "pi0" or "pi05", whose expert's norms are modulated."""
    tiny = size == TINY
    expert = SMALL_EXPERT if tiny else GEMMA_300M
    expert = replace(expert, condition=expert.width if kind == "pi05" else None)
    return Sizes(kind, ACTIONS, SMALL_VOCABULARY if tiny else VOCABULARY, SMALL_SIGLIP if tiny else SIGLIP,
                 SMALL_GEMMA if tiny else GEMMA_2B, expert)


class OpenPi(FlowPolicy):
    """Frames u8 [1,side,side,3], token ids i64 [1,L] with their mask, state f32 [1,S], noise f32 [1,H,32] ->
    {"action": f32 [1,H,D]} in robot units, as one of openpi's training configurations has it."""

    def __init__(self, sizes: Sizes, settings: Settings):
        super().__init__(sizes, settings.horizon, settings.steps)
        robot, kind = settings.robot, Bounds if settings.quantiles else Moments
        self.settings, self.cameras = settings, [f"image.{name}" for _, name in sorted(settings.cameras)]
        self.state_statistics, self.action_statistics = kind(robot.state, EPSILON), kind(robot.action, EPSILON)
        self.register_buffer("offsets", torch.tensor(settings.offsets, dtype=torch.float32), persistent=False)
        self.reads_state = settings.state == "input" or any(settings.offsets)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        settings, count = self.settings, self.settings.robot.action
        state = known = None
        if self.reads_state:
            known = to_internal(inputs[STATE]) if settings.internal else inputs[STATE]
        if settings.state == "input":
            state = F.pad(self.state_statistics.normalise(known), (0, ACTIONS - settings.robot.state))
        seen = [pixels(inputs[c]) for c in self.cameras]
        chunk = super().forward(seen, inputs[TOKENS], inputs[MASK], state, inputs[NOISE])
        action = self.action_statistics.unnormalise(chunk[..., :count])
        if any(settings.offsets):
            action = action + (known[:, :count] * self.offsets)[:, None]
        return {"action": from_internal(action) if settings.internal else action}

    def write(self, frames: Sequence[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor, most: int) \
            -> torch.Tensor:
        """The most probable tokens i64 [1,most] behind frames (pixels [1,3,s,s] in [-1, 1]) and a text (ids i64 [1,L]
        and their mask): up to END, and zeros behind it. The logits are read by the embedding's own rows."""
        factor, rows = math.sqrt(self.embed.embedding_dim), self.embed.weight
        prefix = torch.cat([*(self.projector(self.vision(f)) for f in frames), self.embed(tokens) * factor], 1)
        there = torch.cat([torch.ones(1, prefix.shape[1] - mask.shape[1], dtype=torch.bool), mask], 1)
        hidden, read = self.language.run(prefix, added(there[:, None] & there[:, :, None]), there.cumsum(-1) - 1)
        count, slots = there.sum(-1, keepdim=True), most - 1
        here, steps, alone = torch.eye(most, dtype=torch.bool), torch.arange(most), torch.ones(1, 1, dtype=torch.bool)
        before = torch.tril(torch.ones(slots, slots, dtype=torch.bool), -1)

        def step(k: int, state: tuple) -> tuple:
            token, written, made = state
            past = [(torch.cat([a, c], 2), torch.cat([b, d], 2)) for (a, b), (c, d) in zip(read, made, strict=True)]
            seen = added(torch.cat([there, before[k][None], alone], 1)[:, None])
            x, own = self.language.run(self.embed(token) * factor, seen, count + steps[k], past)
            new = torch.where(token == END, token, F.linear(x, rows).argmax(-1))  # where the first is the end already
            made = tuple(tuple(torch.where(here[k, :slots, None], a, b) for a, b in zip(row, old, strict=True))
                         for row, old in zip(own, made, strict=True))
            return new, torch.where(here[k + 1] & (token != END), new, written), made

        last = (torch.arange(prefix.shape[1])[None] == count - 1).to(hidden.dtype)[:, None] @ hidden
        first = F.linear(last, rows).argmax(-1)
        empty = tuple(tuple(torch.zeros_like(x[:, :, :1].expand(-1, -1, slots, -1)) for x in pair) for pair in read)
        return iterate(step, (first, torch.where(here[0], first, 0), empty), slots,
                       until=lambda state: state[0] == END)[1]


def openpi_policy(kind: str, name: str, size: str, execute: int | None = None) -> Policy:
    """name: of openpi's configuration. A state that is part of the text makes the text change with every observation;
    the host writes its token ids."""
    sizes, settings = openpi_sizes(kind, size), settings_of(kind, CheckpointOptions(openpi_config=name), name, {})
    model = OpenPi(sizes, settings).eval()
    length = SMALL_PROMPT if size == TINY else settings.prompt_tokens
    tokens, mask = words(length, sizes.vocabulary, min(length * 2 // 3, 96))
    text = FRAME if settings.state == "prompt" else TASK
    example = {**{c: frame(sizes.vision.side) for c in model.cameras}, TOKENS: tokens, MASK: mask,
               NOISE: torch.randn(1, settings.horizon, ACTIONS)}
    sources = {**dict.fromkeys(model.cameras, FRAME), TOKENS: text, MASK: text, NOISE: STEP}
    if model.reads_state:
        example[STATE], sources[STATE] = torch.rand(1, settings.robot.state), FRAME
    return Policy(name, model, sources, example, execute=execute)
