# host
# whole numbers that a bf16 layer decides were held to what rounding changes on ordinary inputs, also at their edges

import torch
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("table0", torch.full((6,), 100000.0))
        self.register_buffer("table1", torch.full((6,), 10.0))
        self.linear0 = nn.Linear(6, 8)
        self.linear_half0 = nn.Linear(8, 8).to(torch.bfloat16)
        self.linear1 = nn.Linear(8, 12)

    def forward(self, joints0):
        v0 = ((joints0 - self.table0) / (self.table1))
        v1 = v0.unsqueeze(1)
        v2 = self.linear0(v1)
        v3 = self.linear_half0(v2.to(torch.bfloat16)).float()
        v4 = v3.mean(1)
        v5 = self.linear1(v4).view(1, 3, 4)
        return {"action": v5, "extra0": v3, "extra1": (v3 * 10).round().long()}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "joints0": 100000.0 + 10.0 * torch.randn(1, 6, generator=g),
    }
    sources = {
        "joints0": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0", "extra1",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"joints0": (100000.0, 10.0)}
