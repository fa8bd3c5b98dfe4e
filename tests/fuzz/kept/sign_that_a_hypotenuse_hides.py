# host
# a flag turns the sign of a number of which hypot takes the square: no fault of the compiler

import torch
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear0 = nn.Linear(8, 12)

    def forward(self, state0, flags0):
        v0 = (~flags0).float() - 0.5
        v1 = torch.hypot(state0, v0)
        v2 = self.linear0(v1).view(1, 3, 4)
        return {"action": v2}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "state0": torch.randn(1, 8, generator=g),
        "flags0": torch.rand(1, 8, generator=g) < 0.5,
    }
    sources = {
        "state0": vc.Source("observation"),
        "flags0": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {}
