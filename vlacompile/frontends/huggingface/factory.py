"""Prints a template of a policy made from a vision and a text backbone:

python -m vlacompile.frontends.huggingface.factory VISION_DIR TEXT_DIR > my_policy.py
vlacompile build my_policy:make
"""

from __future__ import annotations

import sys

TEMPLATE = '''"""A late-fusion policy: one camera, an instruction and the joint state in, a chunk of actions out."""

import torch
from torch import nn

import vlacompile as vc
from vlacompile.frontends.huggingface.backbones import text_backbone, vision_backbone

STATE, STEPS, ACTION, LENGTH, WIDTH = 7, 16, 7, 32, 256  # sizes of your robot and head
FRAME = (480, 640)  # height and width of the camera's frames


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.see, self.read = vision_backbone({vision!r}, FRAME), text_backbone({text!r})
        self.image, self.text = nn.Linear(self.see.width, WIDTH), nn.Linear(self.read.width, WIDTH)
        self.state, self.queries = nn.Linear(STATE, WIDTH), nn.Parameter(torch.randn(1, STEPS, WIDTH))
        self.attend, self.head = nn.MultiheadAttention(WIDTH, 8, batch_first=True), nn.Linear(WIDTH, ACTION)

    def forward(self, image, tokens, mask, state):
        parts = [self.image(self.see(image)), self.text(self.read(tokens, mask)), self.state(state)[:, None]]
        unseen = [~mask if i == 1 else torch.zeros(1, p.shape[1], dtype=torch.bool) for i, p in enumerate(parts)]
        memory = torch.cat(parts, 1)
        x, _ = self.attend(self.queries, memory, memory, key_padding_mask=torch.cat(unseen, 1), need_weights=False)
        return {{"action": self.head(x)}}


def make() -> vc.Policy:
    model = Policy().eval()  # here: load the weights of your training
    task, seen = vc.Source("task"), vc.Source("observation")
    return vc.Policy("mine", model, {{"image": seen, "tokens": task, "mask": task, "state": seen}}, {{
        "image": torch.randint(0, 256, (1, *FRAME, 3), dtype=torch.uint8),
        "tokens": torch.randint(0, model.read.vocabulary, (1, LENGTH)),
        "mask": torch.arange(LENGTH)[None] < 10, "state": torch.zeros(1, STATE)}})
'''


def factory(vision: str, text: str) -> str:
    """The template's Python code."""
    return TEMPLATE.format(vision=vision, text=text)


if __name__ == "__main__":
    print(factory(*sys.argv[1:3]), end="")
