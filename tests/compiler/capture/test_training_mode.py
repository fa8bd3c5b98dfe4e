"""A module in training mode is refused where that changes what it computes, by its own runs in both modes; and nowhere
else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.training_mode import in_training
from vlacompile.policy.policy import Policy, Source
from vlart.errors import CaptureError


class ReadsItsMode(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


class AsksByName(nn.Module):
    def forward(self, x):
        return x + 1 if getattr(self, "training") else x  # noqa: B009


class InAHelper(nn.Module):
    @property
    def rate(self):
        return 0.5 if self.training else 0.0

    def forward(self, x):
        return x * (1 - self.rate)


class InAComprehension(nn.Module):
    def forward(self, x):
        return sum([x + 1 if self.training else x for _ in range(2)])


class SetsItsModeOnly(nn.Module):
    def train(self, mode=True):
        return super().train(mode and not self.training)

    def forward(self, x):
        return 2 * x


class Child(nn.Dropout):
    """A layer of PyTorch with a method beside it."""

    def other(self):
        return self.p


def hooked():
    layer = nn.Linear(4, 4)
    layer.register_forward_pre_hook(lambda m, args: (args[0] + 1,) if m.training else args)
    return layer


def replaced():
    layer = nn.Identity()
    layer.forward = lambda x: x + 1 if layer.training else x
    return layer


# {name: (module, input shape)}
MODULES = {
    "dropout": lambda: (nn.Dropout(0.5), (4, 8)), "dropout of nothing": lambda: (nn.Dropout(0.0), (4, 8)),
    "dropout 2d": lambda: (nn.Dropout2d(0.5), (1, 8, 4, 4)), "alpha dropout": lambda: (nn.AlphaDropout(0.5), (4, 8)),
    "feature dropout": lambda: (nn.FeatureAlphaDropout(0.5), (4, 8, 4)), "child": lambda: (Child(0.5), (4, 8)),
    "batch norm 1d": lambda: (nn.BatchNorm1d(8), (4, 8)), "batch norm 2d": lambda: (nn.BatchNorm2d(3), (2, 3, 4, 4)),
    "batch norm without statistics": lambda: (nn.BatchNorm1d(8, track_running_stats=False), (4, 8)),
    "instance norm": lambda: (nn.InstanceNorm2d(3), (2, 3, 4, 4)),
    "instance norm with statistics": lambda: (nn.InstanceNorm2d(3, track_running_stats=True), (2, 3, 4, 4)),
    "rrelu": lambda: (nn.RReLU(), (4, 8)), "rrelu of one slope": lambda: (nn.RReLU(0.2, 0.2), (4, 8)),
    "lstm": lambda: (nn.LSTM(8, 4, 2, dropout=0.5), (3, 2, 8)),
    "lstm of one layer": lambda: (nn.LSTM(8, 4), (3, 2, 8)),
    "lstm that drops nothing": lambda: (nn.LSTM(8, 4, 2), (3, 2, 8)),
    "gru": lambda: (nn.GRU(8, 4, 2, dropout=0.5), (3, 2, 8)),
    "linear": lambda: (nn.Linear(8, 4), (4, 8)), "convolution": lambda: (nn.Conv2d(3, 4, 2), (2, 3, 4, 4)),
    "layer norm": lambda: (nn.LayerNorm(8), (4, 8)), "group norm": lambda: (nn.GroupNorm(2, 4), (2, 4, 3)),
    "identity": lambda: (nn.Identity(), (4, 8)), "sequence": lambda: (nn.Sequential(nn.ReLU()), (4, 8)),
    "relu": lambda: (nn.ReLU6(), (4, 8)), "upsample": lambda: (nn.Upsample(scale_factor=2), (1, 3, 4, 4)),
    "spectral norm": lambda: (parametrizations.spectral_norm(nn.Linear(8, 8)).parametrizations.weight[0], (8, 8)),
    "old spectral norm": lambda: (nn.utils.spectral_norm(nn.Linear(8, 8)), (4, 8)),
    "weight norm": lambda: (parametrizations.weight_norm(nn.Linear(8, 8)), (4, 8)),
    "own code": lambda: (ReadsItsMode(), (4, 8)), "by name": lambda: (AsksByName(), (4, 8)),
    "in a property": lambda: (InAHelper(), (4, 8)), "in a comprehension": lambda: (InAComprehension(), (4, 8)),
    "own train()": lambda: (SetsItsModeOnly(), (4, 8)), "hook": lambda: (hooked(), (4, 4)),
    "replaced forward": lambda: (replaced(), (4, 8)),
}
OPERANDS = {
    "attention": lambda: (nn.MultiheadAttention(8, 2, 0.5), (3, 2, 8), 3),
    "attention that drops nothing": lambda: (nn.MultiheadAttention(8, 2), (3, 2, 8), 3),
}


def results(module, shape, count, training) -> list[torch.Tensor]:
    """Of five calls, each from the state that the module has now."""
    state = {k: v.clone() for k, v in module.state_dict().items()}
    module.train(training)
    found = []
    for seed in range(5):
        torch.manual_seed(7)
        x = torch.randn(shape)
        torch.manual_seed(seed)
        with torch.no_grad():
            got = module(*[x] * count)
        found.append((got[0] if isinstance(got, tuple) else got).clone())
        module.load_state_dict(state)
    return found


@pytest.mark.parametrize("name", [*MODULES, *OPERANDS])
def test_what_depends_on_the_mode_by_its_own_runs(name):
    torch.manual_seed(0)
    module, shape, *count = (MODULES | OPERANDS)[name]()
    module.eval()
    known = results(module, shape, *(count or [1]), training=False)
    other = results(module, shape, *(count or [1]), training=True)
    assert all(torch.equal(k, known[0]) for k in known)
    differs = any(not torch.allclose(k, o, atol=1e-6) for k, o in zip(known, other, strict=True))
    assert (in_training(module) is not None) == differs


class Net(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 2), head

    def forward(self, x):
        return {"action": self.head(self.conv(x).mean((2, 3)))}


def policy(net) -> Policy:
    return Policy("p", net, {"x": Source("observation")}, {"x": torch.randn(1, 3, 4, 4)})


def test_a_head_that_is_taken_off_after_eval_is_none_in_training():
    net = Net(nn.Linear(8, 8)).eval()
    net.head = nn.Identity()
    assert net.head.training and capture(policy(net)).outputs == ("action",)


def test_a_module_of_which_nothing_reads_the_mode_needs_no_eval():
    assert capture(policy(Net(nn.Linear(8, 8)))).outputs == ("action",)


@pytest.mark.parametrize("put", [lambda: nn.Dropout(0.1), lambda: nn.BatchNorm1d(8), ReadsItsMode])
def test_a_layer_that_is_added_after_eval_is_refused_by_its_name(put):
    net = Net(nn.Linear(8, 8)).eval()
    net.head = nn.Sequential(nn.Linear(8, 8).eval(), put())
    with pytest.raises(CaptureError, match="training mode") as caught:
        capture(policy(net))
    assert f"head.1 ({type(net.head[1]).__name__})" in caught.value.where and ".eval()" in caught.value.fix
    net.head.eval()
    assert capture(policy(net)).outputs == ("action",)
