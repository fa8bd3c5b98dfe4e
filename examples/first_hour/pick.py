"""A camera and seven joints -> sixteen actions. A real one loads its weights."""

import torch

import vlacompile as vc

eye, arm, head = torch.nn.Conv2d(3, 32, 8, 8), torch.nn.Linear(7, 32), torch.nn.Linear(64, 16 * 7)


def act(image, state):
    seen = eye(image.permute(0, 3, 1, 2) / 255).relu().mean((2, 3))
    return {"action": head(torch.cat([seen, arm(state)], 1)).tanh().view(1, 16, 7)}


def make():
    seen = vc.Source("observation")
    return vc.Policy("pick", act, {"image": seen, "state": seen},
                     {"image": torch.zeros(1, 96, 96, 3, dtype=torch.uint8), "state": torch.rand(1, 7)})
