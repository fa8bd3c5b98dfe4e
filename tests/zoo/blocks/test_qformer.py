from __future__ import annotations

import torch

from vlacompile.zoo.blocks.qformer import CrossAttentionBlock


@torch.no_grad()
def test_a_block_attends_as_the_module_whose_weights_it_has():
    torch.manual_seed(0)
    block = CrossAttentionBlock(16, 4).eval()
    query, seen, keep = torch.randn(1, 3, 16), torch.randn(1, 5, 16), torch.arange(5)[None] < 4
    read, _ = block.cross_attn(block.norm1(query), seen, seen, key_padding_mask=~keep)
    want = query + read
    want = want + block.mlp(block.norm2(want))
    torch.testing.assert_close(block(query, seen, keep), want, rtol=1e-5, atol=1e-6)
    assert (block(query, seen, torch.ones_like(keep)) - want).abs().max() > 1e-3
