# host
# a golden edge that last bits decide, of a policy that looks back
import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear0 = nn.Linear(8, 8)
        self.linear1 = nn.Linear(8, 8)
        self.linear2 = nn.Linear(8, 8)
        self.linear3 = nn.Linear(8, 12)

    def forward(self, state0):
        v0 = F.relu(self.linear0(state0))
        v1 = F.relu(self.linear1(v0))
        v2 = F.relu(self.linear2(v1))
        v3 = (state0 - state0.mean(-1, keepdim=True)) / (state0.std(-1, keepdim=True, unbiased=False) + 1e-5)
        v4 = v3.mean(1)
        v5 = self.linear3(v4).view(1, 3, 4)
        return {"action": v5}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "state0": torch.randn(1, 2, 8, generator=g),
    }
    sources = {
        "state0": vc.Source("observation", history=2),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {}
