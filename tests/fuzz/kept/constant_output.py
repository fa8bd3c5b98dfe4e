# host every-stage
# sums of a constant output were rounded in another order than by the policy

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch0 = nn.Conv2d(3, 8, 4, 4)
        self.embedding0 = nn.Embedding(12, 8, padding_idx=0)
        self.position0 = nn.Parameter(torch.randn(1, 3, 8) * 0.1)
        self.register_buffer("table0", torch.full((8,), 100000.0))
        self.register_buffer("table1", torch.full((8,), 10.0))
        self.linear0 = nn.Linear(16, 16)
        self.linear1 = nn.Linear(16, 16)
        self.linear2 = nn.Linear(16, 8)
        self.linear3 = nn.Linear(8, 12)
        self.register_buffer("table2", torch.tensor([600.0, 20.0, 1.0, 0.01], dtype=torch.float64))
        self.register_buffer("table3", torch.tensor([2048.0, 0.0, -3.0, 1.0], dtype=torch.float64))

    def forward(self, camera0, ids0, joints0):
        v0 = camera0.float() / 255
        v1 = F.interpolate(v0, size=(8, 8), mode="bilinear")
        v2 = self.patch0(v1)
        v3 = self.embedding0(ids0)
        v4 = ids0 != 0
        v5 = v3 + self.position0
        v6 = ((joints0 - self.table0) / (self.table1 + 1e-8))
        v7 = F.adaptive_avg_pool2d(v2, 1).flatten(1)
        v8 = v2.amax((2, 3))
        v9 = torch.cat([v7, v8], -1)
        v10 = self.linear0(v9)
        v11 = v10[:, 0:16]
        v12 = F.adaptive_avg_pool2d(v2, 1).flatten(1)
        v13 = v2.amax((2, 3))
        v14 = torch.cat([v12, v13], -1)
        v15 = self.linear1(v14)
        v16 = v15[:, 0:16]
        v17 = self.linear2(v16)
        v18 = self.linear3(v17).view(1, 3, 4)
        return {"action": v18.double() * self.table2 + self.table3, "extra0": (v11 * 10).round().long(),
                "extra1": v11.double()}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "camera0": torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=g),
        "ids0": (torch.arange(3)[None] * 11 // 2).to(torch.int64),
        "joints0": 100000.0 + 10.0 * torch.randn(1, 8, generator=g),
    }
    sources = {
        "camera0": vc.Source("static"),
        "ids0": vc.Source("task"),
        "joints0": vc.Source("static"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0", "extra1",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"ids0": (0, 12), "joints0": (100000.0, 10.0)}
