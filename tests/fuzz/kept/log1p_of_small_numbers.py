# host
# log(1 + x) lost the digits of a small x
import torch
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear0 = nn.Linear(8, 12)

    def forward(self, state0):
        v0 = torch.log1p(state0.abs() * 1e-4) * 1e4
        v1 = self.linear0(v0).view(1, 3, 4)
        return {"action": v1}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "state0": torch.randn(1, 8, generator=g),
    }
    sources = {
        "state0": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {}
