# host every-stage
# a stage of one source ran for another, of whose tokens none was read

import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding0 = nn.Embedding(12, 8)
        self.linear0 = nn.Linear(5, 8)
        self.register_buffer("table0", torch.arange(8) % 3 != 1)
        self.linear1 = nn.Linear(5, 8)
        self.register_buffer("table1", (torch.arange(1)[:, None] > 0).expand(1, 1).clone())
        self.attention0 = nn.MultiheadAttention(8, 2, batch_first=True)
        self.linear2 = nn.Linear(5, 8)
        self.linear3 = nn.Linear(8, 16)
        self.linear4 = nn.Linear(16, 32)
        self.linear5 = nn.Linear(5, 8)
        self.linear6 = nn.Linear(16, 16)
        self.linear7 = nn.Linear(5, 8)
        self.linear8 = nn.Linear(8, 8)
        self.linear9 = nn.Linear(4, 8)
        self.linear10 = nn.Linear(5, 8)
        self.linear11 = nn.Linear(8, 8)
        self.linear12 = nn.Linear(5, 8)
        self.register_buffer("table2", torch.linspace(-1, 1, 8))
        self.linear13 = nn.Linear(4, 8)
        self.linear14 = nn.Linear(4, 8)
        self.linear15 = nn.Linear(8, 4)
        self.linear16 = nn.Linear(8, 8)
        self.network0 = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.linear17 = nn.Linear(4, 8)
        self.linear18 = nn.Linear(8, 4)
        self.linear19 = nn.Linear(8, 8)
        self.linear20 = nn.Linear(1, 8, bias=False)

    def forward(self, task0, state0, ids0, noise0):
        v0 = F.one_hot(task0, 4).float()
        v1 = state0.float()
        v2 = self.embedding0(ids0)
        v3 = ids0 != 0
        v4 = v1.unsqueeze(1)
        v5 = self.linear0(v4)
        v6 = v5[..., self.table0]
        v7 = self.linear1(v6)
        v8 = self.attention0(v7, v7, v7, attn_mask=~self.table1, need_weights=False)[0]
        v9 = v7 + v8
        v10 = torch.fmod(ids0 - 6, 4).float()
        v11 = self.linear2(v10)
        scale0, shift0 = self.linear3(F.silu(v11)).view(1, 2, 8).unbind(1)
        v12 = v9 * (1 + scale0[:, None]) + shift0[:, None]
        v13 = v2.new_zeros(1, 8)
        v14 = torch.zeros(1, 8)
        states0 = []
        for k in range(5):
            i, f, o, u = self.linear4(torch.cat([v2[:, k], v13], -1)).chunk(4, -1)
            v14 = torch.sigmoid(f) * v14 + torch.sigmoid(i) * torch.tanh(u)
            v13 = torch.sigmoid(o) * torch.tanh(v14)
            states0.append(v13)
        v15 = torch.stack(states0, dim=1)
        v16 = v12.mean(1)
        v17 = self.linear5(v1)
        v18 = torch.cat([v16, v17], -1)
        v19 = self.linear6(v18)
        v20 = v19.narrow(1, 15, 1)
        v21 = self.linear7(v6)
        if self.training:
            v21 = F.dropout(self.linear8(v21), 0.5)
        v22 = v0.unsqueeze(1)
        v23 = self.linear9(v22)
        v24 = v15.amax(1)
        v25 = torch.zeros_like(v23)
        v25[:, :, 3:5] = torch.tensor([0.5, -0.5])
        v26 = v1.unsqueeze(1)
        v27 = self.linear10(v26)
        v28 = torch.cat([v12, v27, v15], dim=1)
        v29 = self.linear11(v28)
        v30 = v29.narrow(1, 6, 1)
        v31 = v10.unsqueeze(1)
        v32 = self.linear12(v31)
        if not torch.isfinite(self.table2).all():
            raise ValueError("a table that is not finite")
        v33 = v32 + self.table2
        v34 = self.linear13(v0)
        v35 = v33.mean(1)
        v36 = noise0
        for i in range(3):
            h0 = self.linear14(v36)
            h0 = h0 + self.network0(F.layer_norm(h0, (8,)) + v34.unsqueeze(1))
            out0 = self.linear15(h0)
            h1 = self.linear17(v36)
            h1 = h1 + self.linear20(torch.full((1, 1, 1), 1.0) * (i / 3))
            h1 = F.silu(self.linear19(h1) + v35[:, None])
            out1 = self.linear18(h1)
            v36 = v36 + 0.3333333333333333 * (out1 + 1.5 * (out0 - out1))
        return {"action": v36 * 600 + 2048, "extra0": v33, "extra1": v30.transpose(-1, -2)}


def make():
    g = torch.Generator().manual_seed(1)
    examples = {
        "task0": torch.tensor([3]),
        "state0": torch.randn(1, 5, generator=g).to(torch.bfloat16),
        "ids0": (torch.arange(5)[None] * 11 // 4).to(torch.int64),
        "noise0": torch.randn(1, 3, 4, generator=g),
    }
    sources = {
        "task0": vc.Source("observation"),
        "state0": vc.Source("observation", clock=30),
        "ids0": vc.Source("task"),
        "noise0": vc.Source("observation"),
    }
    return vc.Policy("random", Net().eval(), sources, examples, outputs=("action", "extra0", "extra1",))


# Numbers of each input: (low, high) of integers, (mean, spread) of floats
RANGES = {"task0": (0, 4), "ids0": (0, 12)}
