# host
# whole numbers of some ten millions, which f32 has no digits for, were asked of an engine to the last one

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("table0", torch.full((6,), 100000.0))
        self.register_buffer("table1", torch.full((6,), 10.0))
        self.linear0 = nn.Linear(8, 8)
        self.linear1 = nn.Linear(6, 8)
        self.linear2 = nn.Linear(8, 8)
        self.linear3 = nn.Linear(8, 8)
        self.linear4 = nn.Linear(8, 8)
        self.linear5 = nn.Linear(8, 12)

    def forward(self, joints0, state0, state1, state2):
        v0 = ((joints0 - self.table0) / (self.table1))
        v1 = F.relu(self.linear0(state2))
        v2 = F.relu(self.linear1(v0))
        v3 = v2 * v2
        v4 = F.relu(self.linear2(v3))
        v5 = F.relu(self.linear3(v4))
        v6 = F.relu(self.linear4(v5))
        v7 = self.linear5(v6).view(1, 3, 4)
        return {"action": v7, "extra0": v6, "extra1": (v6 * 10).round().long()}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "joints0": 100000.0 + 10.0 * torch.randn(1, 6, generator=g),
        "state0": torch.randn(1, 8, generator=g),
        "state1": torch.randn(1, 8, generator=g),
        "state2": torch.randn(1, 8, generator=g),
    }
    sources = {
        "joints0": vc.Source("observation"),
        "state0": vc.Source("observation"),
        "state1": vc.Source("observation"),
        "state2": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0", "extra1",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"joints0": (100000.0, 10.0)}
