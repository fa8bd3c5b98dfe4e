# host
# a stage of one source ran for another, of which only a shape was read
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
        self.linear3 = nn.Linear(8, 8)
        self.linear4 = nn.Linear(8, 8)
        self.linear5 = nn.Linear(8, 8)
        self.linear6 = nn.Linear(8, 8)
        self.linear7 = nn.Linear(8, 12)

    def forward(self, state0, state1, points0):
        v0 = F.relu(self.linear0(state0))
        v1 = F.relu(self.linear1(v0))
        v2 = F.relu(self.linear2(v1))
        v3 = F.relu(self.linear3(v2))
        v4 = F.relu(self.linear4(v3))
        v5 = F.relu(self.linear5(v4))
        v6 = F.relu(self.linear6(v5))
        v7 = v6.unsqueeze(1)
        v8 = points0.mean(1)
        v9 = torch.zeros_like(v7)
        v9.transpose(1, 2)[:, 1] = v8.mean()
        v10 = v9.mean(1)
        v11 = self.linear7(v10).view(1, 3, 4)
        return {"action": v11}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "state0": torch.randn(1, 8, generator=g),
        "state1": torch.randn(1, 8, generator=g),
        "points0": torch.randn(1, 4, 8, generator=g),
    }
    sources = {
        "state0": vc.Source("tick"),
        "state1": vc.Source("observation"),
        "points0": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {}
