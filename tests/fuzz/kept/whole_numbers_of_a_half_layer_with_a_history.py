# host
# whole numbers that a bf16 layer decides were held to no difference at all where the policy sees earlier frames

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear_half0 = nn.Linear(8, 8).to(torch.bfloat16)
        self.register_buffer("table0", torch.tensor(1))
        self.linear0 = nn.Linear(8, 8)
        self.linear1 = nn.Linear(8, 8)
        self.linear2 = nn.Linear(8, 8)
        self.linear3 = nn.Linear(8, 8)
        self.linear4 = nn.Linear(8, 8)
        self.linear5 = nn.Linear(8, 8)
        self.linear6 = nn.Linear(8, 12)

    def forward(self, state0):
        v0 = self.linear_half0(state0.to(torch.bfloat16)).float()
        v1 = v0[:, :int(self.table0)]
        v2 = F.relu(self.linear0(v1))
        v3 = F.relu(self.linear1(v0))
        v4 = F.relu(self.linear2(v3))
        v5 = F.relu(self.linear3(v4))
        v6 = F.relu(self.linear4(v5))
        v7 = F.gelu(self.linear5(v4))
        v8 = v7.mean(1)
        v9 = self.linear6(v8).view(1, 3, 4)
        return {"action": v9, "extra0": (v7 * 10).round().long()}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "state0": torch.randn(1, 2, 8, generator=g),
    }
    sources = {
        "state0": vc.Source("observation", history=2),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {}
