"""Small policies for the tests: every structural feature of the real ones, sizes of a toy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy, Source


class LateFusion(nn.Module):
    """Two cameras, masked instruction tokens and state; keys and values of one memory; one chunk."""

    def __init__(self, d: int = 32, tokens: int = 6, steps: int = 10, action_dim: int = 7):
        super().__init__()
        self.steps = steps
        self.language = nn.Embedding(50, d)
        self.language_mix = nn.Linear(d, d)
        self.camera = nn.Sequential(nn.Conv2d(3, d, 8, 8), nn.BatchNorm2d(d), nn.ReLU6())
        self.state = nn.Sequential(nn.Linear(9, d), nn.GELU(), nn.Linear(d, d))
        self.kv = nn.ModuleList([nn.Linear(d, 2 * d) for _ in range(2)])
        self.q = nn.ModuleList([nn.Linear(d, d) for _ in range(2)])
        self.queries = nn.Parameter(torch.randn(1, steps, d))
        self.positions = nn.Parameter(torch.randn(2, 1, 16, d))
        self.head = nn.Linear(d, action_dim)
        self.register_buffer("action_std", torch.arange(1.0, action_dim + 1))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens, mask = inputs["observation.language.tokens"], inputs["observation.language.attention_mask"]
        language = self.language_mix(self.language(tokens))
        views = [self._see(inputs[f"observation.images.{c}"]) + self.positions[i]
                 for i, c in enumerate(("base", "wrist"))]
        memory = torch.cat([*views, language, self.state(inputs["observation.state"])[:, None]], dim=1)
        seen = torch.ones(1, views[0].shape[1] * 2, dtype=torch.bool)
        keep = torch.cat([seen, mask, torch.ones(1, 1, dtype=torch.bool)], 1)[:, None, None, :]
        x = self.queries
        for q, kv in zip(self.q, self.kv, strict=True):
            k, v = kv(memory).chunk(2, -1)
            x = x + F.scaled_dot_product_attention(q(x)[:, None], k[:, None], v[:, None], attn_mask=keep)[:, 0]
        return {"action": torch.tanh(self.head(x)) * self.action_std / 7}

    def _see(self, image: torch.Tensor) -> torch.Tensor:
        pixels = (image.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        return self.camera(pixels).flatten(2).transpose(1, 2)


class Flow(nn.Module):
    """A flow-matching policy with its loop written out: time embedding, adaptive scale that depends on
    the state and the step, prefix keys and values, an Euler step that differs per iteration."""

    def __init__(self, d: int = 32, iterations: int = 4, layers: int = 3, horizon: int = 10, dim: int = 7):
        super().__init__()
        self.iterations = iterations
        self.language, self.camera, self.state = nn.Embedding(50, d), nn.Conv2d(3, d, 8, 8), nn.Linear(9, d)
        self.embed, self.head = nn.Linear(dim, d), nn.Linear(d, dim)
        self.time = nn.Sequential(nn.Linear(16, d), nn.SiLU(), nn.Linear(d, d))
        self.modulation = nn.Linear(d, 2 * d)
        self.kv = nn.ModuleList([nn.Linear(d, 2 * d) for _ in range(layers)])
        self.q = nn.ModuleList([nn.Linear(d, d) for _ in range(layers)])
        self.ff = nn.ModuleList([nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
                                 for _ in range(layers)])
        self.register_buffer("std", torch.arange(1.0, dim + 1) / dim)

    def forward(self, tokens, image, state, noise) -> dict[str, torch.Tensor]:
        pixels = image.permute(0, 3, 1, 2).float() / 255 - 0.5
        seen = self.camera(pixels).flatten(2).transpose(1, 2)
        s = self.state(state)
        memory = torch.cat([self.language(tokens), seen, s[:, None]], 1)
        x = noise
        for k in range(self.iterations):
            x = x + self.velocity(x, memory, s, k / self.iterations) * (0.1 + 0.05 * k)
        return {"action": x.clamp(-3, 3) * self.std}

    def velocity(self, x, memory, state, time: float):
        angle = torch.full((1, 1), time) * torch.exp(torch.arange(8) * -0.5)
        t = self.time(torch.cat([torch.sin(angle), torch.cos(angle)], -1))
        scale, shift = self.modulation(F.silu(t) + state)[:, None].chunk(2, -1)
        h = self.embed(x) * (1 + scale) + shift + t[:, None]
        for q, kv, ff in zip(self.q, self.kv, self.ff, strict=True):
            k, v = kv(memory).chunk(2, -1)
            h = h + F.scaled_dot_product_attention(q(h)[:, None], k[:, None], v[:, None])[:, 0]
            h = h + ff(h)
        return self.head(h)


class TwoCameras(nn.Module):
    """One encoder for two cameras and two frames at once, as (batch frames cameras), and keypoints by a softmax."""

    def __init__(self, d: int = 16, frames: int = 2, steps: int = 5, dim: int = 4):
        super().__init__()
        self.d, self.frames, self.steps, self.dim = d, frames, steps, dim
        self.camera = nn.Sequential(nn.Conv2d(3, d, 4, 4), nn.BatchNorm2d(d), nn.ReLU(), nn.MaxPool2d(2),
                                    nn.Conv2d(d, d, 3, padding=1), nn.GroupNorm(4, d), nn.ReLU())
        self.place, self.out = nn.Parameter(torch.randn(16, 2)), nn.Linear(2 * d, d)
        self.head = nn.Linear(frames * (2 * d + 9), steps * dim)

    def forward(self, base, wrist, state) -> dict[str, torch.Tensor]:
        images = torch.stack([base, wrist], 2).movedim(-1, -3).float() / 255  # [1,frames,cameras,3,H,W]
        seen = self.camera(images.flatten(0, 2))
        points = torch.softmax(seen.reshape(-1, 16), -1) @ self.place
        features = torch.relu(self.out(points.view(-1, 2 * self.d)))
        features = features.reshape(1, self.frames, 2 * self.d)
        out = self.head(torch.cat([state, features], -1).flatten(1))
        return {"action": torch.tanh(out).reshape(1, self.steps, self.dim)}


class Remember(nn.Module):
    """A policy of three observations: a shared encoder of each frame by itself, the states as they are, and an
    instruction that modulates every observation."""

    def __init__(self, d: int = 24, frames: int = 3, steps: int = 5, dim: int = 4):
        super().__init__()
        self.frames, self.steps, self.dim = frames, steps, dim
        self.camera, self.project = nn.Conv2d(3, d, 8, 8), nn.Linear(d * 16, d)
        self.language, self.state = nn.Embedding(50, d), nn.Linear(9, d)
        self.times = nn.Parameter(torch.randn(frames, 1, d))
        self.head = nn.Linear(d * frames, steps * dim)

    def forward(self, tokens, image, state) -> dict[str, torch.Tensor]:
        told = self.language(tokens).mean(1)
        seen = [self.see(image[:, i]) * torch.tanh(told + self.state(state[:, i])) + self.times[i]
                for i in range(self.frames)]
        return {"action": torch.tanh(self.head(torch.cat(seen, -1))).reshape(1, self.steps, self.dim)}

    def see(self, image: torch.Tensor) -> torch.Tensor:
        pixels = image.permute(0, 3, 1, 2).float() / 255 - 0.5
        return torch.tanh(self.project(torch.relu(self.camera(pixels)).flatten(1)))


def picture(size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)


def late_fusion(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    model = LateFusion().eval()
    task, frame = Source("task"), Source("observation", 10.0)
    return Policy(
        "late_fusion", model,
        {"observation.language.tokens": task, "observation.language.attention_mask": task,
         "observation.images.base": frame, "observation.images.wrist": frame,
         "observation.state": Source("observation", 50.0)},
        {"observation.language.tokens": torch.randint(0, 50, (1, 6)),
         "observation.language.attention_mask": torch.tensor([[True] * 4 + [False] * 2]),
         "observation.images.base": picture(), "observation.images.wrist": picture(),
         "observation.state": torch.randn(1, 9)})


def flow_inputs() -> tuple[dict[str, Source], dict[str, torch.Tensor]]:
    sources = {"tokens": Source("task"), "image": Source("observation", 10.0), "state": Source("observation", 50.0),
               "noise": Source("step")}
    return sources, {"tokens": torch.randint(0, 50, (1, 6)), "image": picture(), "state": torch.randn(1, 9),
                     "noise": torch.randn(1, 10, 7)}


def flow(iterations: int = 4, seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    model = Flow(iterations=iterations).eval()
    return Policy("flow", model, *flow_inputs())


def remember(frames: int = 3, seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    model = Remember(frames=frames).eval()
    image, state = (Source("observation", 10.0, history=frames) for _ in range(2))
    return Policy("remember", model, {"tokens": Source("task"), "image": image, "state": state},
                  {"tokens": torch.randint(0, 50, (1, 6)), "image": torch.stack([picture() for _ in range(frames)], 1),
                   "state": torch.randn(1, frames, 9)})


def two_cameras(frames: int = 2, seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    sources = {n: Source("observation", history=frames) for n in ("base", "wrist", "state")}
    image = lambda: torch.stack([picture() for _ in range(frames)], 1)
    inputs = {"base": image(), "wrist": image(), "state": torch.randn(1, frames, 9)}
    if frames == 1:
        model = TwoCameras(frames=1).eval()
        sources = dict.fromkeys(sources, Source("observation"))
        return Policy("two_cameras", lambda **x: model(**{n: t[:, None] for n, t in x.items()}), sources,
                      {n: t[:, 0] for n, t in inputs.items()})
    return Policy("two_cameras", TwoCameras(frames=frames).eval(), sources, inputs)


EVERY_STAGE = """name = "every-stage"
description = "no stage merges into another"
[stages]
min_flops = 0
[loop]
form = "steps"
"""


class DualRate(nn.Module):
    """A slow reasoner of an instruction and a wide view, and a fast head that reads what it came to."""

    def __init__(self, d: int = 32, steps: int = 4, dim: int = 3):
        super().__init__()
        self.steps, self.dim = steps, dim
        self.language, self.camera = nn.Embedding(50, d), nn.Conv2d(3, d, 8, 8)
        self.reason = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.wrist, self.state = nn.Linear(16, d), nn.Linear(9, d)
        self.head = nn.Sequential(nn.Linear(3 * d, d), nn.GELU(), nn.Linear(d, steps * dim))

    def forward(self, tokens, wide, touch, state) -> dict[str, torch.Tensor]:
        seen = self.camera(wide.permute(0, 3, 1, 2).float() / 255 - 0.5).flatten(2).mean(2)
        latent = self.reason(torch.tanh(self.language(tokens).mean(1) + seen))
        x = torch.cat([latent, torch.tanh(self.wrist(touch)), self.state(state)], -1)
        return {"action": torch.tanh(self.head(x)).reshape(1, self.steps, self.dim)}


def dual_rate(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    return Policy("dual_rate", DualRate().eval(),
                  {"tokens": Source("task"), "wide": Source("observation", 8.0), "touch": Source("observation", 50.0),
                   "state": Source("observation", 200.0)},
                  {"tokens": torch.randint(0, 50, (1, 6)), "wide": picture(), "touch": torch.randn(1, 16),
                   "state": torch.randn(1, 9)})
