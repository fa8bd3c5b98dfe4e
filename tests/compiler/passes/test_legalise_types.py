"""Types that engines do not have: bf16, fp16, f64 and small integers, in weights, sources, outputs and in between."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.live import worst
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.passes.legalise_types import coarsest
from vlacompile.policy.policy import Policy, Source
from vlart.errors import ParityError
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

OBSERVED = Source("observation")


class Stored(nn.Module):
    """Weights in one type; frames, tokens and state; attention."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        torch.manual_seed(0)
        self.dtype = dtype
        self.tokens, self.state = nn.Embedding(20, 32).to(dtype), nn.Linear(8, 32).to(dtype)
        self.frame = nn.Conv2d(3, 32, 8, 8).to(dtype)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True).to(dtype)
        self.norm, self.head = nn.LayerNorm(32).to(dtype), nn.Linear(32, 12).to(dtype)

    def forward(self, state, tokens, frame):
        seen = self.frame(frame.permute(0, 3, 1, 2).to(self.dtype) / 255).flatten(2).transpose(1, 2)
        memory = torch.cat([self.tokens(tokens), seen], 1)
        x = self.state(state.to(self.dtype))[:, None]
        x = self.norm(x + self.attention(x, memory, memory, need_weights=False)[0])
        return {"action": self.head(x).float().reshape(1, 2, 6)}


def stored(dtype: torch.dtype, state: torch.dtype = torch.float32) -> Policy:
    draw = torch.Generator().manual_seed(1)
    inputs = {"state": torch.randn(1, 8, generator=draw).to(state), "tokens": torch.arange(7)[None],
              "frame": torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=draw)}
    return Policy("stored", Stored(dtype).eval(),
                  {"state": OBSERVED, "tokens": Source("task"), "frame": OBSERVED}, inputs)


@pytest.mark.parametrize(("dtype", "limit"),
                         [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float64, 1e-5)], ids=str)
def test_weights(tmp_path, dtype, limit):
    assert worst(lambda: stored(dtype), tmp_path / "p.vlab") < limit
    assert worst(lambda: stored(dtype), tmp_path / "b.vlab", target="orin-nano-8gb") < max(limit, 1e-2)


def test_weights_of_16_bits_are_stored_once_and_in_16(tmp_path):
    sizes = {}
    for dtype in (torch.float32, torch.bfloat16):
        bundle = vc.build(stored(dtype), out=tmp_path / f"{dtype}.vlab")
        sizes[dtype] = (bundle.path / "stages" / "weights.bin").stat().st_size
        kinds = {w.type.dtype for w in bundle.plan.weights if len(w.type.dims) > 1 and w.type.bytes > 4096}
        assert kinds == ({"bf16"} if dtype is torch.bfloat16 else {"f32"})
    assert sizes[torch.bfloat16] < 0.6 * sizes[torch.float32]


@pytest.mark.parametrize("state", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_source_in_another_type_is_written_as_it_is_declared(tmp_path, state):
    assert worst(lambda: stored(torch.float32, state), tmp_path / "p.vlab") < 2e-6


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 12))

    def forward(self, state):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.net(state)
            with torch.autocast("cpu", enabled=False):
                y = y.float() + self.net[3](self.net[0](state))
        return {"action": y.reshape(1, 2, 6)}


def test_autocast(tmp_path):
    make = lambda: Policy("autocast", Autocast().eval(), {"state": OBSERVED}, {"state": torch.ones(1, 8)})
    assert worst(make, tmp_path / "p.vlab") < 1e-2


class Integers(nn.Module):
    """Depth in u16, counts in i16 and i8; every kind of output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lin = nn.Linear(8, 12)

    def forward(self, state, depth, count, small):
        x = state + depth.float().mean((1, 2))[:, None] * 1e-3 + (count * 2).float() + small.float()
        y = self.lin(x)
        return {"action": y.reshape(1, 2, 6).half(), "wide": y.double(), "coarse": y.bfloat16(), "value": y.mean(),
                "token": y.argmax(-1), "stop": y.sum() > 0, "echo": state, "again": y, "once_more": y,
                "bias": self.lin.bias * 1.0}


OUTPUTS = ("action", "wide", "coarse", "value", "token", "stop", "echo", "again", "once_more", "bias")


def integers() -> Policy:
    inputs = {"state": torch.linspace(-1, 1, 8)[None], "depth": torch.arange(144).reshape(1, 12, 12).to(torch.uint16),
              "count": torch.arange(-4, 4)[None].to(torch.int16), "small": torch.arange(8)[None].to(torch.int8)}
    return Policy("integers", Integers().eval(), dict.fromkeys(inputs, OBSERVED), inputs, outputs=OUTPUTS)


@pytest.mark.parametrize(("target", "limit"), [("host", 1e-6), ("orin-nano-8gb", 1e-2)])
def test_integers_and_every_kind_of_output(tmp_path, target, limit):
    full = {"depth": torch.full((1, 12, 12), 65535 if target == "host" else 500, dtype=torch.int32).to(torch.uint16)}
    assert worst(integers, tmp_path / "p.vlab", target=target, extra=(full,)) < limit


def test_a_number_is_handed_out_with_one_dimension(tmp_path):
    bundle = vc.build(integers(), out=tmp_path / "p.vlab")
    assert str(next(v.type for v in bundle.plan.values if v.name == "value")) == "f32[1]"
    assert "i32[1,12,12]" in {str(v.type) for v in bundle.plan.values}


def test_names_that_differ_in_no_letter(tmp_path):
    names = ("a.b", "a_b", "input", "class", "0", "None", "lambda", "linear", "max")
    make = lambda: Policy("names", lambda **k: {"action": k["a.b"] - 2 * k["a_b"] + sum(k[n] for n in names[2:])},
                          dict.fromkeys(names, OBSERVED),
                          {n: torch.full((1, 2, 3), float(i)) for i, n in enumerate(names)})
    assert worst(make, tmp_path / "p.vlab") < 1e-6


class Deep(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(64, 4, 256, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 24, enable_nested_tensor=False).to(dtype)
        self.head = nn.Linear(64, 7).to(dtype)

    def forward(self, x):
        return {"action": self.head(self.body(x.to(self.head.weight.dtype))).float()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_stated_tolerance_is_above_what_roundings_come_to_and_below_a_wrong_weight(dtype):
    x, coarse = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(2)), Deep(dtype).eval()
    with torch.no_grad():
        want = coarse(x)["action"].numpy()
        fine = coarse.float()
        got = fine(x)["action"].numpy()
        fine.head.weight[:2].mul_(-1.0)
        wrong = fine(x)["action"].numpy()
    kind = "bf16" if dtype is torch.bfloat16 else "f16"
    limit = tolerance(kind, "chunk").limit(want)
    assert compare(got, want).within(limit) and compare(got, want).rel_l2 < limit.rel_l2 / 2
    assert not compare(wrong, want).within(limit)


def test_the_type_that_the_tolerance_is_of():
    assert coarsest(capture(stored(torch.bfloat16))) == "bf16"
    assert coarsest(capture(stored(torch.float64))) == "f32"


def test_another_function_in_16_bits_is_refused(tmp_path):
    """A negative control: what gives something else on other inputs does not pass for rounding."""
    policy = stored(torch.bfloat16)
    calls = iter(range(100))
    moved = Policy("moved", lambda **k: {"action": policy.observe(**k)["action"] + 0.3 * (next(calls) > 3)},
                   policy.sources,
                   policy.example_inputs)
    with pytest.raises(ParityError):
        vc.build(moved, out=tmp_path / "p.vlab")


class Fused(nn.Module):
    """PyTorch computes this layer at once in eval mode, and rounds at other places than the ops of its trace."""

    def __init__(self, dtype: torch.dtype, unit: float, layers: int = 1):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.unit, self.enter = unit, nn.Linear(8, 32).to(dtype)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).to(dtype)
        self.head = nn.Linear(32, 14).to(dtype)

    def forward(self, x):
        return {"action": self.head(self.body(self.enter(x))) * self.unit}


def fused(dtype: torch.dtype, unit: float, layers: int = 1) -> Policy:
    x = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    return Policy("fused", Fused(dtype, unit, layers).eval(), {"x": OBSERVED}, {"x": x})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0])
def test_a_last_digit_of_16_bits_is_no_difference_however_small_the_outputs(tmp_path, dtype, unit):
    """At 1e-6 the digits of fp16 end: all outputs are multiples of 2^-24."""
    assert vc.verify(vc.build(fused(dtype, unit), out=tmp_path / "p.vlab").path).passed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_last_digits_add_up_over_layers(tmp_path, dtype):
    assert vc.verify(vc.build(fused(dtype, 1.0, layers=6), out=tmp_path / "p.vlab").path).passed


@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 1e-6), (torch.bfloat16, 1.0), (torch.float16, 1e-3),
                                             (torch.float16, 1.0)], ids=str)
def test_a_tenth_of_a_small_output_is_refused(tmp_path, dtype, unit):
    """A negative control, in the same dtypes and units: the policy moves after it was traced."""
    policy, calls = fused(dtype, unit), iter(range(100))
    moved = Policy("moved", lambda **k: {"action": policy.observe(**k)["action"] * (1 + 0.1 * (next(calls) > 3))},
                   policy.sources, policy.example_inputs)
    with pytest.raises(ParityError, match="golden frame"):
        vc.build(moved, out=tmp_path / "p.vlab")


def test_the_manifest_says_what_was_computed_in_other_types(tmp_path):
    bundle = vc.build(stored(torch.bfloat16), out=tmp_path / "p.vlab")
    notes = json.loads((bundle.path / "manifest.json").read_text())["provenance"]["notes"]
    assert any("bfloat16" in n for n in notes), notes


class Sampler(nn.Module):
    """Ten steps of a flow under autocast, or with weights in 16 bits; the time is embedded in f64."""

    def __init__(self, dtype: torch.dtype, autocast: bool):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.autocast = nn.Sequential(nn.Linear(6 + 8 + 4, 64), nn.SiLU(),
                                                nn.Linear(64, 6)).to(dtype), autocast

    def forward(self, state, noise):
        x = noise
        for k in range(10):
            time = (torch.tensor(k / 10,
                                 dtype=torch.float64) * torch.linspace(1, 4, 4, dtype=torch.float64)).sin().float()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
                row = torch.cat([x, state[:, None].expand(1, 5, 8), time.expand(1, 5, 4)], -1)
                x = x + 0.1 * self.net(row.to(self.net[0].weight.dtype)).float()
        return {"action": x}


@pytest.mark.parametrize(("dtype", "autocast"), [(torch.bfloat16, False), (torch.float32, True)], ids=str)
def test_loops_are_found_whatever_they_are_computed_in(tmp_path, dtype, autocast):
    inputs = {"state": torch.randn(1, 8, generator=torch.Generator().manual_seed(1)), "noise": torch.zeros(1, 5, 6)}
    make = lambda: Policy("sampler", Sampler(dtype, autocast).eval(),
                          {"state": OBSERVED, "noise": Source("step")}, inputs)
    assert worst(make, tmp_path / "p.vlab", draws=1) < 2e-2
    assert [s.sampling.iterations for s in vc.load(tmp_path / "p.vlab").plan.stages if s.sampling] == [10]


EPS = {"normalize": lambda x: nn.functional.normalize(x, dim=-1), "std": lambda x: (x - x.mean()) / (x.std() + 1e-8),
       "clamp": lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12),
       "sum": lambda x: x.abs() / (x.abs().sum() + 1e-9),
       "logsigmoid": lambda x: nn.functional.logsigmoid(x * 100) * 1e-2,
       "logaddexp": lambda x: torch.logaddexp(x * 100, -x * 90) * 1e-2}


@pytest.mark.parametrize("op", EPS)
@pytest.mark.parametrize(("target", "limit"), [("host", 1e-6), ("orin-nano-8gb", 1e-2)])
def test_what_a_tiny_number_guards(tmp_path, op, target, limit):
    """Zeros are an input too: a robot that stands still, a camera that is black."""
    torch.manual_seed(0)
    head = nn.Linear(8, 6).eval()
    make = lambda: Policy("eps", lambda x: {"action": head(EPS[op](x))[:, None]}, {"x": OBSERVED},
                          {"x": torch.randn(1, 8, generator=torch.Generator().manual_seed(3))})
    bundle, zeros = tmp_path / "p.vlab", torch.zeros(1, 8)
    vc.build(make(), target=target, out=bundle)
    with vc.Session(bundle, stand_in=target != "host") as session:
        for x in (zeros, make().example_inputs["x"], make().example_inputs["x"] * 1e-3):
            session.write("x", x)
            session.step()
            want = make().infer(x=x)["action"].detach()
            assert (torch.from_numpy(session.read("action"))
                    - want).abs().max() < limit * max(1.0, float(want.abs().max()))


def test_tokens_of_nothing(tmp_path):
    """An empty list of cameras, in reduced precision too."""
    torch.manual_seed(0)
    words, lin, norm, head = (m.eval() for m in (nn.Embedding(50, 32), nn.Linear(8, 32), nn.LayerNorm(32),
                                                 nn.Linear(32, 6)))

    def observe(tokens, state):
        return {"action": head(torch.cat([norm(lin(state[:, None])), norm(words(tokens[:, :0]))], 1)[:, -1])[:, None]}

    make = lambda: Policy("p", observe, {"tokens": Source("task"), "state": OBSERVED},
                          {"tokens": torch.arange(10)[None], "state": torch.linspace(-1, 1, 8)[None]})
    assert worst(make, tmp_path / "p.vlab", target="orin-nano-8gb") < 1e-2
