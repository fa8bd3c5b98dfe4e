# host
# a golden edge on which a value between stages is rounding alone
import math

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch0 = nn.Conv2d(3, 8, 4, 4)
        self.linear0 = nn.Linear(1, 8)
        self.linear1 = nn.Linear(8, 8)
        self.use_extra = False
        self.norm0 = nn.InstanceNorm2d(8, affine=True)
        self.linear2 = nn.Linear(4, 8)
        self.linear3 = nn.Linear(8, 4)
        self.linear4 = nn.Linear(8, 8)
        self.network0 = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, camera0, state0, noise0):
        v0 = camera0.to(torch.float32).div(255).sub(0.5)
        v1 = self.patch0(v0)
        v2 = state0.unsqueeze(1)
        v3 = self.linear0(v2)
        v4 = v1.flatten(2).transpose(1, 2)
        v5 = torch.einsum("bnd,bmd->bnm", v3, v4) / math.sqrt(8)
        v6 = v1.flatten(2).transpose(1, 2)
        v7 = self.linear1(v6) if self.use_extra else v6
        v8 = v1.flatten(2).transpose(1, 2)
        v9 = v8 > 0.1
        v10 = torch.isfinite(v8)
        v11 = (v9 & v10).float()
        v12 = torch.tanh(v7)
        v13 = torch.select_scatter(v7, v12[:, 0], 1, 15)
        v14 = self.norm0(v1)
        v15 = F.adaptive_avg_pool2d(v14, 1).flatten(1)
        v16 = v1.flatten(2).transpose(1, 2)
        v17 = noise0
        for i in range(4):
            h0 = self.linear2(v17)
            h0 = h0 + self.network0(F.layer_norm(h0, (8,)) + v15.unsqueeze(1))
            out0 = self.linear3(h0)
            v17 = v17 + 0.25 * out0
        return {"action": torch.tanh(v17), "extra0": (v1 * 10).round().long(), "extra1": v11.unsqueeze(0)}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "camera0": torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=g),
        "state0": torch.randn(1, 1, generator=g),
        "noise0": torch.randn(1, 3, 4, generator=g),
    }
    sources = {
        "camera0": vc.Source("observation", clock=30),
        "state0": vc.Source("static"),
        "noise0": vc.Source("step"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0", "extra1",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {}
