"""A small policy for every pass: what the docstring of the pass shows. A new pass has its own here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.passes.batch_over_loop import BatchOverLoop
from vlacompile.compiler.passes.canonicalise_attention import CanonicaliseAttention
from vlacompile.compiler.passes.collapse_linear_chains import CollapseLinearChains
from vlacompile.compiler.passes.decompose_integers import DecomposeIntegers
from vlacompile.compiler.passes.decompose_untranslated import DecomposeUntranslated
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.drop_open_masks import DropOpenMasks
from vlacompile.compiler.passes.drop_unread_rows import DropUnreadRows
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.fold_batch_norms import FoldBatchNorms
from vlacompile.compiler.passes.fold_constants import FoldConstants
from vlacompile.compiler.passes.fold_picks_into_tables import FoldPicksIntoTables
from vlacompile.compiler.passes.fold_slices_into_linears import FoldSlicesIntoLinears
from vlacompile.compiler.passes.fold_slices_of_concat import FoldSlicesOfConcat
from vlacompile.compiler.passes.graph_pass import GraphPass
from vlacompile.compiler.passes.guard_empty_rows import GuardEmptyRows
from vlacompile.compiler.passes.hoist_slices import HoistSlices
from vlacompile.compiler.passes.initialise_empty import InitialiseEmpty
from vlacompile.compiler.passes.insert_output_copies import InsertOutputCopies
from vlacompile.compiler.passes.legalise_integers import LegaliseIntegers
from vlacompile.compiler.passes.legalise_types import LegaliseTypes
from vlacompile.compiler.passes.lower_complex import LowerComplex
from vlacompile.compiler.passes.lower_fills import LowerFills
from vlacompile.compiler.passes.lower_resizes import LowerResizes
from vlacompile.compiler.passes.lower_slice_scatters import LowerSliceScatters
from vlacompile.compiler.passes.lower_splits import LowerSplits
from vlacompile.compiler.passes.merge_fills import MergeFills
from vlacompile.compiler.passes.narrow_masked_heads import NarrowMaskedHeads
from vlacompile.compiler.passes.order_operands import OrderOperands
from vlacompile.compiler.passes.preallocate_caches import PreallocateCaches
from vlacompile.compiler.passes.rewrite_products_as_linears import RewriteProductsAsLinears
from vlacompile.compiler.passes.slice_before_pointwise import SliceBeforePointwise
from vlacompile.compiler.passes.split_batch_by_rate import SplitBatchByRate
from vlacompile.compiler.passes.split_convolution_over_channels import SplitConvolutionOverChannels
from vlacompile.compiler.passes.split_large_linears import SplitLargeLinears
from vlacompile.compiler.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.compiler.passes.split_linear_over_features import SplitLinearOverFeatures
from vlacompile.compiler.passes.split_reads_by_rate import SplitReadsByRate
from vlacompile.compiler.passes.split_tokens_by_rate import SplitTokensByRate
from vlacompile.compiler.passes.unflatten_linears import UnflattenLinears
from vlacompile.compiler.passes.unroll_loop import UnrollLoop
from vlacompile.compiler.passes.unroll_recurrences import UnrollRecurrences
from vlacompile.policy.policy import Policy, Source

X = {"x": torch.randn(1, 4)}


class Product(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b = torch.nn.Parameter(torch.randn(4, 5)), torch.nn.Parameter(torch.randn(5))

    def forward(self, x):
        return {"action": x @ self.w + self.b}


class Features(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(4, 5))

    def forward(self, a, b):
        return {"action": torch.nn.functional.linear(torch.cat([a, b], 1), self.w)}


def _decoded(k, q):
    for _ in range(2):
        k = torch.cat([k, torch.tanh(q)], 1)
        q = torch.softmax(q @ k.transpose(1, 2), -1) @ k
    return {"action": q}


class Film(torch.nn.Module):
    """A loop whose body is modulated by what depends on {observation, step}."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, observation, noise):
        for k in range(2):
            noise = noise * torch.nn.functional.linear(torch.relu(observation + 0.1 * k), self.w)
        return {"action": noise}


class Flat(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return {"action": torch.relu(torch.nn.functional.linear(x.reshape(6, 4), self.w).reshape(2, 3, 5))}


class OneQuery(torch.nn.Module):
    """Only one row is read, and of the keys it sees two."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(2, 2))
        self.register_buffer("mask", torch.tensor([[True, False, False, True]]).expand(4, 4).clone())

    def forward(self, x):
        q = torch.nn.functional.linear(x, self.w)
        return {"action": torch.nn.functional.scaled_dot_product_attention(q, x, x, self.mask)[:, 2]}


class Normed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(1, 1, 1))
        self.norm = torch.nn.BatchNorm1d(1)
        torch.nn.init.normal_(self.norm.weight)
        torch.nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        return {"action": self.norm(torch.nn.functional.conv1d(x, self.w))}


class LastToken(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(4, 2))

    def forward(self, x):
        return {"action": torch.relu(torch.nn.functional.linear(x, self.w))[:, -1]}


class Batched(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(2, 3, 1, 1))

    def forward(self, a, b):
        return {"action": torch.nn.functional.conv2d(torch.cat([a, b]), self.w)}


class Speed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        before, now = (torch.nn.functional.linear(x[:, i], self.w) for i in range(2))
        return {"action": now - before}


class Split(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, a, b):
        return {"action": torch.nn.functional.linear(torch.cat([a, b], 1), self.w)}


class Chain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        return {"action": torch.nn.functional.linear(torch.nn.functional.linear(x, self.a), self.b)}


class Large(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(192, 4))

    def forward(self, x):
        return {"action": torch.nn.functional.linear(x, self.w)}


class Allowed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(5, 4))
        self.register_buffer("allowed", torch.tensor([False, True, False, True, True]))

    def forward(self, x):
        logits = torch.nn.functional.linear(x, self.w)
        return {"action": torch.where(self.allowed, logits, -torch.inf).argmax(-1)}


class Narrow(Split):
    def forward(self, x):
        return {"action": torch.relu(torch.nn.functional.linear(x, self.w)[:, 2:])}


def _assigned(x, a):
    return {"action": torch.relu(torch.slice_scatter(x, a, 1, 0, 2))}


def _resized(x):
    return {"action": torch.nn.functional.interpolate(x, (2, 6), mode="bilinear", antialias=True)}


def _filled(x):
    return {"action": x + torch.empty_like(x).fill_(1.0)}


def _chunked(x):
    first, second = x.chunk(2, 1)
    return {"action": first - second}


class Words(torch.nn.Module):
    """Of six words three can be chosen."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(6, 4))
        self.register_buffer("known", torch.tensor([4, 0, 3]))

    def forward(self, x):
        return {"action": torch.nn.functional.embedding(self.known[x.argmax(-1)], self.w)}


class Channels(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(1, 3, 3))
        self.register_buffer("zeros", torch.zeros(1, 1, 3))

    def forward(self, a):
        return {"action": torch.conv1d(torch.cat([a, self.zeros], 1), self.w)}


class Masked(torch.nn.Module):
    """A mask whose last columns are those of words."""

    def __init__(self):
        super().__init__()
        self.register_buffer("fixed", torch.ones(1, 2, dtype=torch.bool))
        self.register_buffer("causal", torch.ones(5, 5, dtype=torch.bool).tril())

    def forward(self, words):
        return {"action": (self.causal & torch.cat([self.fixed, words], 1))[:, :2]}


def _scaled(a, b):
    return {"action": torch.relu(torch.tanh(torch.cat([a, b], 1))[:, :2])}


def _cropped(a, b):
    return {"action": torch.relu(torch.cat([a, b], 1)[:, :2])}


class Tokens(torch.nn.Module):
    """The task's tokens come first and do not see the image's."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(4, 4))
        groups = torch.tensor([0, 0, 1, 1, 1])
        self.register_buffer("mask", groups[None] <= groups[:, None])

    def forward(self, task, image):
        tokens = torch.cat([task, image], 1)
        query = torch.nn.functional.linear(tokens, self.w)
        return {"action": torch.nn.functional.scaled_dot_product_attention(query, tokens, tokens, self.mask)}


def _repeated(noise, observation):
    for _ in range(2):
        noise = torch.tanh(noise) * observation
    return {"action": noise}


def _dropout(x):
    return {"action": torch.relu(torch.nn.functional.dropout(x, 0.1, False))}


def _twice(x):
    return {"action": torch.relu(x) + torch.relu(x)}


class Largest(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(2, 4))

    def forward(self, x):
        return {"action": x + self.w.max(0).values}


class Bf16(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))

    def forward(self, x):
        return {"action": (x * self.w).float()}


class Unmasked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(4, 4, dtype=torch.bool))

    def forward(self, q):
        return {"action": torch.nn.functional.scaled_dot_product_attention(q, q, q, self.mask)}


def _attention(q, m):
    return {"action": torch.nn.functional.scaled_dot_product_attention(q, q, q, m)}


class Turn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("turns", torch.polar(torch.ones(2), torch.tensor([0.5, 1.5])))

    def forward(self, x):
        return {"action": torch.view_as_real(torch.view_as_complex(x) * self.turns)}


class Recur(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w_ih, self.w_hh = torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(3, 3))

    def forward(self, x, h):
        return {"action": torch.rnn_tanh_cell(x, h, self.w_ih, self.w_hh)}


def _signed(x, y):
    return {"action": torch.copysign(x, y)}


class Mixed(torch.nn.Module):
    """Types that no engine has in all places: sources, weights, constants, outputs, roundings."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4).bfloat16()
        self.register_buffer("offset", torch.randn(4, dtype=torch.float64))
        self.register_buffer("step", torch.ones(4, dtype=torch.int8))

    def forward(self, single, half, double, whole):
        schedule = torch.arange(4, dtype=torch.float64) * 0.5 * self.offset
        mixed = self.linear(single.bfloat16()) + schedule.bfloat16()
        rounded = (half * 2).float() + double.float().bfloat16().float()
        return {"action": rounded + mixed.float(), "sum": mixed, "count": whole + self.step,
                "scaled": double * schedule}


def mixed_types() -> Policy:
    inputs = _sized(single=(1, 4), half=(1, 4), double=(1, 4), whole=(1, 4))
    to = {"half": torch.float16, "double": torch.float64, "whole": torch.int16}
    made = _policy(Mixed(), {n: x.to(to.get(n, x.dtype)) for n, x in inputs.items()})
    return replace(made, outputs=("action", "sum", "count", "scaled"))


def _policy(model: Callable, inputs: dict[str, torch.Tensor], **sources: Source) -> Policy:
    """sources: those that are no observations."""
    model = model.eval() if isinstance(model, torch.nn.Module) else model
    return Policy("example", model, dict.fromkeys(inputs, Source("observation")) | sources, inputs)


def _sized(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _self_attention(x):
    return {"action": torch.nn.functional.scaled_dot_product_attention(x, x, x)}


TASK, STEP = Source("task"), Source("step")
HIDDEN = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
# {pass with the options of its example: a policy}
EXAMPLES: dict[GraphPass, Callable[[], Policy]] = {
    BatchOverLoop(): lambda: _policy(Film(), _sized(observation=(1, 4), noise=(1, 4)), noise=STEP),
    CanonicaliseAttention(): lambda: _policy(_self_attention, _sized(x=(1, 5, 4))),
    CollapseLinearChains(): lambda: _policy(Chain(), _sized(x=(1, 3))),
    DecomposeUntranslated(is_translated, decompositions): lambda: _policy(_signed, _sized(x=(1, 3), y=(1, 3))),
    DelayFrames(): lambda: _policy(Speed(), _sized(x=(1, 2, 4)), x=Source("observation", history=2)),
    DropIdentities(): lambda: _policy(_dropout, X),
    DropOpenMasks(): lambda: _policy(Unmasked(), _sized(q=(1, 2, 4, 8))),
    DropUnreadRows(): lambda: _policy(OneQuery(), _sized(x=(1, 4, 2))),
    EliminateCommonSubexpressions(): lambda: _policy(_twice, X),
    FoldBatchNorms(): lambda: _policy(Normed(), _sized(x=(1, 1, 2))),
    FoldConstants(): lambda: _policy(Largest(), X),
    FoldPicksIntoTables(): lambda: _policy(Words(), _sized(x=(1, 2, 3))),
    FoldSlicesIntoLinears(): lambda: _policy(Narrow(), X),
    FoldSlicesOfConcat(): lambda: _policy(_cropped, _sized(a=(1, 2), b=(1, 3))),
    GuardEmptyRows(): lambda: _policy(_attention, _sized(q=(1, 2, 4, 8)) | {"m": HIDDEN}),
    InitialiseEmpty(): lambda: _policy(_filled, X),
    InsertOutputCopies(): lambda: _policy(lambda x: {"action": x}, X),
    LegaliseTypes(): lambda: _policy(Bf16(), {"x": X["x"].bfloat16()}),
    LowerComplex(): lambda: _policy(Turn(), _sized(x=(1, 2, 2))),
    LegaliseIntegers(): lambda: _policy(lambda x: {"action": (x + 200).float()},
                                        {"x": torch.arange(4, dtype=torch.uint8)[None] * 60}),
    DecomposeIntegers(): lambda: _policy(lambda x, y: {"action": x == y},
                                         {"x": torch.tensor([[True, True, False, False]]),
                                          "y": torch.tensor([[True, False, True, False]])}),
    HoistSlices(): lambda: _policy(LastToken(), _sized(x=(1, 5, 2))),
    LowerFills(): lambda: _policy(lambda x, state: {"action": x + torch.full_like(torch.relu(state), 0.5)},
                                  _sized(x=(1, 4), state=(1, 4))),
    LowerResizes(): lambda: _policy(_resized, _sized(x=(1, 3, 4, 6))),
    LowerSliceScatters(): lambda: _policy(_assigned, _sized(x=(1, 5), a=(1, 2))),
    LowerSplits(): lambda: _policy(_chunked, X),
    MergeFills(): lambda: _policy(lambda x: {"action": torch.zeros_like(x) + torch.zeros_like(torch.relu(x))}, X),
    OrderOperands(): lambda: _policy(lambda x: {"action": torch.mul(0.5, x)}, X),
    NarrowMaskedHeads(): lambda: _policy(Allowed(), X),
    PreallocateCaches(): lambda: _policy(_decoded, _sized(k=(1, 2, 4), q=(1, 1, 4))),
    RewriteProductsAsLinears(): lambda: _policy(Product(), _sized(x=(1, 3, 4))),
    SliceBeforePointwise(): lambda: _policy(Masked(), {"words": torch.tensor([[True, True, False]])}),
    SplitBatchByRate(): lambda: _policy(Batched(), _sized(a=(1, 3, 4, 4), b=(1, 3, 4, 4))),
    SplitConvolutionOverChannels(): lambda: _policy(Channels(), _sized(a=(1, 2, 3))),
    SplitLargeLinears(): lambda: _policy(Large(), X),
    SplitLinearOverConcat(): lambda: _policy(Split(), _sized(a=(1, 2, 4), b=(1, 3, 4)), a=TASK),
    SplitLinearOverFeatures(): lambda: _policy(Features(), _sized(a=(1, 2), b=(1, 3)), a=TASK),
    SplitReadsByRate(): lambda: _policy(_scaled, _sized(a=(1, 2), b=(1, 3))),
    SplitTokensByRate(least_uses=0): lambda: _policy(Tokens(), _sized(task=(1, 2, 4), image=(1, 3, 4)), task=TASK),
    UnflattenLinears(): lambda: _policy(Flat(), _sized(x=(2, 3, 4))),
    UnrollLoop(): lambda: _policy(_repeated, _sized(noise=(1, 4), observation=(1, 4)), noise=STEP),
    UnrollRecurrences(): lambda: _policy(Recur(), _sized(x=(1, 2), h=(1, 3))),
}
