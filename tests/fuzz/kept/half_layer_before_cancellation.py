# host
# limits of a policy in 16 bits did not know what its own rounding does
import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding0 = nn.Embedding(7, 8)
        self.linear0 = nn.Linear(8, 8)
        self.linear1 = nn.Linear(8, 8)
        self.linear_half0 = nn.Linear(8, 8).to(torch.float16)
        self.linear2 = nn.Linear(8, 8, bias=False)
        self.linear3 = nn.Linear(8, 12)

    def forward(self, task0):
        v0 = self.embedding0(task0)
        v1 = F.relu(self.linear0(v0))
        v2 = F.relu(self.linear1(v1))
        v3 = v2.unsqueeze(1)
        v4 = self.linear_half0(v3.to(torch.float16)).float()
        v5 = F.relu(self.linear2(v4))
        v6 = v5.mean(1)
        v7 = self.linear3(v6).view(1, 3, 4)
        return {"action": v7, "extra0": v5}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "task0": torch.tensor([6]),
    }
    sources = {
        "task0": vc.Source("task"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"task0": (0, 7)}
