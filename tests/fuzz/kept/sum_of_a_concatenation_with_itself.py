# host
# `v + v` of a concatenation was split as if it had one operand
import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear0 = nn.Linear(8, 8)
        self.linear1 = nn.Linear(8, 12)

    def forward(self, state0):
        v0 = state0.unsqueeze(1)
        v1 = v0.clone()
        v1[:, :, 3:5] = torch.tensor([0.5, -0.5])
        v2 = v1 + v1
        v3 = F.relu(self.linear0(v2))
        v4 = v3.mean(1)
        v5 = self.linear1(v4).view(1, 3, 4)
        return {"action": v5}


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
