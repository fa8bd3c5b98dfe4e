"""What is known of attentions before a graph is written is what the written graph says."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from vlacompile.pipeline import plan_on_board

BOARD = "orin-nano-8gb"


class Attending(torch.nn.Module):
    """Attention of several shapes over one observation: fused, narrow, of one head, masked by query, too wide."""

    SHAPES = ((4, 64, 32), (4, 64, 8), (1, 128, 16), (1, 127, 16), (2, 16, 320))

    def forward(self, x: torch.Tensor, by_query: bool) -> torch.Tensor:
        total = x.mean(1, keepdim=True)
        for heads, tokens, width in self.SHAPES:
            q = x[:, :tokens, :1].expand(1, tokens, heads * width).reshape(1, tokens, heads, width).transpose(1, 2)
            q = q * (1 + torch.arange(width) / width)
            mask = torch.ones(tokens, tokens).tril().bool()[None, None] if by_query else None
            y = torch.nn.functional.scaled_dot_product_attention(q, q.sin(), q.cos(), attn_mask=mask)
            total = total + y.mean((1, 2, 3))[:, None, None]
        return total


def attending(by_query: bool) -> vc.Policy:
    module = Attending()
    return vc.Policy("attending", lambda state: {"action": module(state, by_query)},
                     {"state": vc.Source("observation")}, {"state": torch.randn(1, 128, 4)}, outputs=("action",))


def facts(rows) -> Counter:
    return Counter((r["stage"], r["heads"], r["queries"], r["keys"], r["width"], tuple(r["obstacles"]),
                    "short" in r["doubts"]) for r in rows)


@pytest.mark.parametrize("rewritten", [True, False])
@pytest.mark.parametrize("make", [lambda: attending(False), lambda: attending(True), policies.late_fusion])
def test_a_plan_lists_what_the_built_bundle_lists(make, rewritten, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'name = "r"\ndescription = "of attentions"\n'
                      f'[precision]\nbase = "fp16"\nlayers = "fp16"\n[tensorrt]\n'
                      f'fusible_attentions = {str(rewritten).lower()}\n', encoding="utf-8")
    planned = plan_on_board(make(), BOARD, str(recipe))[1].attention_facts()
    bundle = vc.build(make(), BOARD, str(recipe), tmp_path / "x.vlab")
    built = bundle.manifest["provenance"].get("attentions", [])
    assert planned["attentions"] and len(planned["attentions"]) == len(built)
    unfused = [[r for r in rows if r["obstacles"]] for rows in (planned["attentions"], built)]
    assert facts(unfused[0]) == facts(unfused[1])
