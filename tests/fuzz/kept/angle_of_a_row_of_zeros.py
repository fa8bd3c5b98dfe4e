# host
# atan2(0, -1) was -pi
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
        self.embedding0 = nn.Embedding(30, 8, padding_idx=0)
        self.linear0 = nn.Linear(5, 8)
        self.linear1 = nn.Linear(4, 8)
        self.linear2 = nn.Linear(8, 4)
        self.linear3 = nn.Linear(8, 8)
        self.modulation0 = nn.Sequential(nn.SiLU(), nn.Linear(8, 48))
        self.linear4 = nn.Linear(8, 24)
        self.linear5 = nn.Linear(4, 4)

    def forward(self, ids0, mask0, depth0, noise0):
        v0 = self.embedding0(ids0)
        v1 = (v0[:, :, None] - v0[:, None]).pow(2).sum(-1)
        v2 = F.interpolate(v0.transpose(1, 2), size=5, mode="linear").transpose(1, 2)
        v3 = self.linear0(v1)
        v4 = torch.bmm(v3.transpose(1, 2), v3) / 5
        v5 = v4.mean(1, keepdim=True)
        v6 = torch.atan2(v0, v5 + 3)
        v7 = mask0.logical_not().logical_not()
        v8 = v6[:, -1]
        v9 = v8.unsqueeze(1) * torch.linspace(0.5, 1.5, 5)[None, :, None]
        v10 = v9 * v7[..., None]
        v11 = v10 > 0.1
        v12 = v10 <= v10.mean()
        v13 = v11.float().cumprod(1)
        v14 = v13 > 0.1
        v15 = v13.abs() < 1
        v16 = (v14.int() - v15.int()).float()
        v17 = v0 > 0.1
        v18 = v0 <= v0.mean()
        v19 = (v17 | ~v18).float()
        v20 = (depth0 & 15).float()
        v21 = torch.tanh(v6)
        v22 = v6.flatten(1)[:, torch.tensor([0, 3, 1, 39])]
        v23 = v2.mean(1)
        v24 = noise0
        kept = [v24]
        for i in range(4):
            h0 = self.linear1(v24)
            c = sinusoidal(torch.full((1,), 1.0) * (i / 4), 8) + v23
            m0, m1, m2, m3, m4, m5 = self.modulation0(c)[:, None].chunk(6, dim=-1)
            h0 = F.layer_norm(h0, (8,)) * (1 + m0) + m1
            h0 = h0 + m2 * torch.tanh(h0)
            h0 = h0 + m3 * torch.tanh(h0)
            h0 = h0 + m4 * torch.tanh(h0)
            h0 = h0 + m5 * torch.tanh(h0)
            joined = torch.cat([v9, h0], 1)
            q, k, v = self.linear4(joined).view(1, 8, 3, 2, 4).permute(2, 0, 3, 1, 4)
            h0 = h0 + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 5:]
            out0 = self.linear2(h0)
            v24 = v24 + 0.5 * out0 - 0.1 * kept[-1]
            kept.append(v24)
        return {"action": v24}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "ids0": (torch.arange(5)[None] * 29 // 4).to(torch.int64),
        "mask0": torch.arange(5)[None] < 3,
        "depth0": torch.randint(0, 256, (1, 4, 8), dtype=torch.uint8, generator=g),
        "noise0": torch.randn(1, 3, 4, generator=g),
    }
    sources = {
        "ids0": vc.Source("task"),
        "mask0": vc.Source("task"),
        "depth0": vc.Source("task"),
        "noise0": vc.Source("step"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"ids0": (0, 30)}
