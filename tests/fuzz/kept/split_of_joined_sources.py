# host every-stage
# a stage of one source ran for the other: what was joined came apart again by split
import torch
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding0 = nn.Embedding(12, 8)
        self.embedding1 = nn.Embedding(30, 8)
        self.linear0 = nn.Linear(24, 8)
        self.linear1 = nn.Linear(8, 12)

    def forward(self, ids0, ids1):
        v0 = self.embedding0(ids0)
        v1 = self.embedding1(ids1)
        v2 = torch.cat([v0, v1], dim=1)
        part0, part1 = torch.split(v2, [3, 3], dim=1)
        v3 = self.linear1(torch.tanh(self.linear0(part0.flatten(1)))).view(1, 3, 4)
        return {"action": v3, "extra0": part1}


def make():
    examples = {
        "ids0": torch.arange(3)[None] * 11 // 2,
        "ids1": torch.arange(3)[None] * 29 // 2,
    }
    sources = {
        "ids0": vc.Source("task"),
        "ids1": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0"))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"ids0": (0, 12), "ids1": (0, 30)}
