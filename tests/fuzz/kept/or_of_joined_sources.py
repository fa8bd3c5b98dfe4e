# host every-stage
# a stage of one source ran for the other: `|` was not known to act on elements

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding0 = nn.Embedding(12, 8)
        self.position0 = nn.Parameter(torch.randn(1, 8, 8) * 0.1)
        self.conv0 = nn.Conv1d(8, 8, 3, stride=2, padding=1)
        self.linear0 = nn.Linear(4, 8)
        self.layer0 = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.encoder0 = nn.TransformerEncoder(self.layer0, 2, enable_nested_tensor=False)
        self.linear_half0 = nn.Linear(8, 8).to(torch.bfloat16)
        self.linear1 = nn.Linear(5, 8)
        self.linear2 = nn.Linear(5, 8)
        self.linear3 = nn.Linear(1, 8)
        self.linear4 = nn.Linear(8, 12)

    def forward(self, task0, ids0, mask0):
        v0 = F.one_hot(task0, 4).float()
        v1 = self.embedding0(ids0)
        v2 = v1 + self.position0
        v3 = self.conv0(v2.transpose(1, 2)).transpose(1, 2)
        v4 = v0.unsqueeze(1)
        v5 = self.linear0(v4)
        v6 = torch.cat([v5, v3], dim=1)
        v7 = v5.mean(1)
        v8 = v3.mean(1)
        v9 = torch.stack([v7, v8], 1)
        v10 = v9[:, 1]
        v11 = torch.fft.rfft(v3, dim=-1).abs()
        v12 = v10.unsqueeze(1)
        v13 = torch.cat([v12, v2], dim=1)
        part0, part1 = torch.split(v13, [1, 8], dim=1)
        v14 = mask0.sum(1, keepdim=True).float() / 8
        v15 = self.encoder0(part0)
        v16 = (ids0 - 6).div(4, rounding_mode="trunc").float()
        v17 = self.linear_half0(part0.to(torch.bfloat16)).float()
        v18 = v9 > 0.1
        v19 = v9.abs() < 1
        v20 = (v18 | ~v19).float()
        v21 = self.linear1(v11)
        v22 = self.linear2(v11)
        v23 = torch.tensordot(v21, v22, dims=([2], [2])).reshape(1, 4, 4)
        v24 = self.linear3(v14)
        v25 = self.linear4(v24).view(1, 3, 4)
        return {"action": v25 * 600 + 2048, "extra0": v15.flatten()[:1], "extra1": v20.flatten()[:1]}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "task0": torch.tensor([3]),
        "ids0": (torch.arange(8)[None] * 11 // 7).to(torch.int64),
        "mask0": torch.arange(8)[None] < 6,
    }
    sources = {
        "task0": vc.Source("observation"),
        "ids0": vc.Source("observation"),
        "mask0": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0", "extra1",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"task0": (0, 4), "ids0": (0, 12)}
