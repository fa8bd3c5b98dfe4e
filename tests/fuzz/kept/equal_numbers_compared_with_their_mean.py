# host
# a golden edge that last bits decide, beside an output in 16 bits
import math

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


def sinusoidal(t, dim):
    half = dim // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half) / half)
    angles = t[:, None].float() * frequencies[None]
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)



class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn0 = nn.LSTM(8, 8, batch_first=True)
        self.linear0 = nn.Linear(4, 8)
        self.linear1 = nn.Linear(8, 4)
        self.linear2 = nn.Linear(8, 16)
        self.time0 = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))
        self.register_buffer("table0", torch.cumprod(1 - torch.linspace(0.01, 0.6, 4), 0))
        self.linear3 = nn.Linear(4, 8)
        self.linear4 = nn.Linear(4, 8)
        self.linear5 = nn.Linear(4, 8)
        self.linear6 = nn.Linear(8, 4)
        self.linear7 = nn.Linear(8, 8)
        self.linear8 = nn.Linear(1, 8, bias=False)

    def forward(self, flags0, state0, points0, noise0, noise1):
        v0 = flags0.float()
        v1 = state0.float()
        v2 = (v0 - v0.mean(-1, keepdim=True)) / (v0.std(-1, keepdim=True, unbiased=False) + 1e-8)
        v3 = v0.unsqueeze(1)
        v4 = v3 > 0.1
        v5 = v3 <= v3.mean()
        v6 = (v4 == v5).float()
        v7 = v0.unsqueeze(1)
        v8 = self.rnn0(v7[:, :1])[0]
        v9 = points0 > 0.1
        v10 = points0 <= points0.mean()
        v11 = (v9 == v10).float()
        v12 = v0.unsqueeze(1)
        v13 = v12 > 0.1
        v14 = v12 <= v12.mean()
        v15 = (v13 == v14).float()
        v16 = v11.flatten(1)
        v17 = v2.unsqueeze(1)
        v18 = noise0 * 1.0
        for i in [2, 1, 0]:
            h0 = self.linear0(v18)
            h0 = h0 + self.time0(sinusoidal(torch.ones(1) * (i / 3) * 100, 8))[:, None]
            scale, shift = self.linear2(v16).unsqueeze(1).chunk(2, dim=2)
            h0 = torch.tanh(h0 * (1 + scale) + shift)
            out0 = self.linear1(h0)
            a, b = self.table0[i + 1], self.table0[i]
            x0 = (out0).clip(-3.0, 3.0)
            v18 = b.sqrt() * x0 + (1 - b).sqrt() * ((v18 - a.sqrt() * x0) / (1 - a).sqrt())
        v19 = v18.mean(1)
        v20 = self.linear3(v19)
        v21 = self.linear4(v18)
        v22 = noise1
        for i in range(3):
            h1 = self.linear5(v22)
            h1 = h1 + self.linear8(torch.full((1, 1, 1), 1.0) * (i / 3))
            h1 = F.silu(self.linear7(h1) + v20[:, None])
            out1 = self.linear6(h1)
            v22 = v22 + 0.3333333333333333 * out1
        return {"action": (v22.clamp(-1, 1) + 1) / 2 * 90, "extra0": v1.half(), "extra1": v0.half()}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "flags0": torch.rand(1, 8, generator=g) < 0.5,
        "state0": torch.randn(1, 8, generator=g).to(torch.float16),
        "points0": torch.randn(1, 1, 8, generator=g),
        "noise0": torch.randn(1, 3, 4, generator=g),
        "noise1": torch.randn(1, 3, 4, generator=g),
    }
    sources = {
        "flags0": vc.Source("task"),
        "state0": vc.Source("static"),
        "points0": vc.Source("observation", clock=7.5),
        "noise0": vc.Source("step"),
        "noise1": vc.Source("step"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0", "extra1",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {}
