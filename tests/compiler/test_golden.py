"""Golden frames look where faults are: at the edges of what sources may hold, with what PyTorch gives there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vlacompile as vc
from vlacompile.compiler.passes.graph_pass import PassResult
from vlacompile.compiler.passes.guard_empty_rows import GuardEmptyRows
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.sample_inputs import EDGES, edge, edge_inputs
from vlart.bundle.directory import GOLDEN_FILE
from vlart.errors import ParityError
from vlart.verify.frames import read_frames

SOURCES = {"mask": Source("task"), "tokens": Source("task"), "frame": Source("observation"),
           "state": Source("observation"),
           "gain": Source("observation")}
EXAMPLES = {"mask": torch.arange(5)[None] < 3, "tokens": torch.tensor([[4, 2, 9, 2, 3]]),
            "frame": torch.randint(10, 200, (1, 4, 4, 3), dtype=torch.uint8), "state": torch.tensor([[-1.5, 0.5, 2.0]]),
            "gain": torch.tensor(0.5)}


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.state, self.head = nn.Embedding(10, 8), nn.Linear(3, 8), nn.Linear(8, 6)

    def forward(self, mask, tokens, frame, state, gain):
        words, query = self.words(tokens), self.state(state)[:, None] * gain
        seen = F.scaled_dot_product_attention(query, words, words, mask[:, None])
        direction = state / (state.norm(dim=-1, keepdim=True) + 1e-8)
        return {"action": self.head(seen + query) + frame.float().mean() / 255 + direction.sum()}


def masked() -> Policy:
    return Policy("masked", Masked().eval(), SOURCES, EXAMPLES)


def test_all_sources_share_the_frames_of_edges(tmp_path):
    frames = read_frames(vc.build(masked(), out=tmp_path / "p.vlab").path / GOLDEN_FILE)[-EDGES:]
    written = {n: [f.writes[n] for f in frames] for n in EXAMPLES}
    assert [int(m.sum()) for m in written["mask"]] == [0, 5, 1, 1]
    assert {int(f.min()) for f in written["frame"]} >= {0, 255} and {int(f.max()) for f in written["frame"]} >= {0, 255}
    assert {t.min() for t in written["tokens"]} == {2, 4, 9} and all(t.max() == t.min() for t in written["tokens"])
    assert not written["state"][0].any() and {float(s.max()) for s in written["state"]} >= {-1.5, 2.0}
    assert all(w.shape == () for w in written["gain"])
    policy = masked()
    for f in frames:
        want = policy.infer(**{n: torch.tensor(a) for n, a in f.writes.items()})["action"]
        assert torch.allclose(torch.tensor(f.expects["action"].array), want, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32, torch.float16])
def test_edges_stay_within_what_the_example_shows(dtype):
    example = (torch.arange(6).reshape(1, 2, 3) % 4 + 3).to(dtype)
    for k in range(EDGES):
        found = edge(example, k)
        assert found.shape == example.shape and found.dtype == dtype
        if dtype in (torch.int32, torch.int64):
            assert int(found.min()) >= 3 and int(found.max()) <= 6
    assert edge(torch.zeros(1, 0), 0).shape == (1, 0)


def test_fewer_edges_where_a_function_fails_at_all():
    candidates = edge_inputs(SOURCES, EXAMPLES)[0][1]
    assert not candidates[0]["mask"].any() and torch.equal(candidates[-1]["mask"], EXAMPLES["mask"])
    assert torch.equal(candidates[1]["tokens"], EXAMPLES["tokens"]) and not candidates[1]["mask"].any()


def test_an_edge_of_which_a_function_makes_no_number_is_no_input(tmp_path):
    def observe(mask, state):
        return {"action": (torch.where(mask, state, 0.0).sum(-1) / mask.sum(-1))[:, None, None]}

    inputs = {"mask": torch.tensor([[True, False, True]]), "state": torch.tensor([[1.0, 2.0, 3.0]])}
    bundle = vc.build(Policy("mean", observe, {"mask": Source("task"), "state": Source("observation")}, inputs),
                      out=tmp_path / "p.vlab")
    frames = read_frames(bundle.path / GOLDEN_FILE)
    assert len(frames) >= 6 + EDGES - 1 and all(f.writes["mask"].any() for f in frames)


def test_a_fault_that_only_an_edge_shows_is_refused(tmp_path, monkeypatch):
    """A negative control: attention as engines have it, without the rows that see nothing."""
    monkeypatch.setattr(GuardEmptyRows, "run", lambda self, program: PassResult(program, False))
    with pytest.raises(ParityError) as raised:
        vc.build(masked(), out=tmp_path / "p.vlab")
    assert "edges 1 of 4" in str(raised.value)


def test_a_bundle_that_was_not_written_is_not_pointed_to(tmp_path, monkeypatch):
    from vlacompile.phases import emit as phase

    honest = phase.emit_onnx

    def emit(stage, dialect="onnxruntime", fp16_weights=False, *rest):
        return honest(replace(stage, constants={n: t * 1.01 if t.is_floating_point() else t
                                                for n, t in stage.constants.items()}),
                      dialect, fp16_weights, *rest)

    monkeypatch.setattr(phase, "emit_onnx", emit)
    with pytest.raises(ParityError) as raised:
        vc.build(masked(), out=tmp_path / "mine.vlab")
    assert raised.value.where.startswith("mine.vlab, frame") and "not written" in raised.value.fix
    assert not list(tmp_path.iterdir())
