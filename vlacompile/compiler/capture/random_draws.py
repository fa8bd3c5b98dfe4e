"""Random numbers that a traced function draws: those of a generator that every call makes and seeds are constants,
others are refused.

Must not know how the policy is traced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program, op_name
from vlacompile.policy.source_lines import line_of
from vlart.errors import CaptureError

_ATEN = torch.ops.aten
# Of the first operand only shape and dtype are read.
DRAWN_BY_SHAPE = frozenset({_ATEN.rand_like.default, _ATEN.randn_like.default, _ATEN.randint_like.default,
                            _ATEN.randint_like.low_dtype})
_NORMAL = frozenset({"randn", "randn_like", "normal", "normal_", "normal_functional"})
_UNIFORM = frozenset({"rand", "rand_like", "uniform", "uniform_", "bernoulli", "bernoulli_", "multinomial",
                      "exponential", "exponential_"})
_INPUT = 'make them an input, noise=Source("step"), which the robot draws: '
_BY_TRAINING = ("dropout", "rrelu", "attention")


class _OfGenerators(type(torch._C.Generator)):
    def __instancecheck__(cls, instance) -> bool:
        return isinstance(instance, torch._C.Generator)


class _Generator(torch._C.Generator, metaclass=_OfGenerators):
    """One that was made within the function. seeded: whether what it draws is the same in every call."""

    seeded = False

    def manual_seed(self, seed: int):
        self.seeded = True
        return super().manual_seed(seed)

    def seed(self) -> int:
        self.seeded = False
        return super().seed()

    def set_state(self, state: torch.Tensor):
        self.seeded = False
        return super().set_state(state)


class SeededDraws:
    """Whether draws are the same in every call. default: those of PyTorch's own generator."""

    def __init__(self) -> None:
        self.default, self._given = False, False

    @contextlib.contextmanager
    def within_the_function(self) -> Iterator[None]:
        """Within this context, seeds are seen."""
        seed, put, kinds = torch.manual_seed, torch.set_rng_state, torch.Generator
        torch.manual_seed = torch.random.manual_seed = lambda value: self._set(True, seed, value)
        torch.set_rng_state = torch.random.set_rng_state = lambda state: self._set(False, put, state)
        torch.Generator, self.default = _Generator, False
        try:
            yield
        finally:
            torch.manual_seed = torch.random.manual_seed = seed
            torch.set_rng_state = torch.random.set_rng_state = put
            torch.Generator = kinds

    def _set(self, seeded: bool, function, value):
        self.default = seeded
        return function(value)

    @contextlib.contextmanager
    def by(self, generator: torch._C.Generator) -> Iterator[None]:
        """Within this context, draws of a generator are of this one: ops get it as another object."""
        before, self._given = self._given, isinstance(generator, torch._C.Generator) and getattr(
            generator, "seeded", False)
        try:
            yield
        finally:
            self._given = before

    def are_the_same(self, func, args: tuple, kwargs: dict) -> bool:
        """Whether an op, which draws, gives the same in every call, as far as that depends on the generator."""
        given = any(isinstance(v, torch._C.Generator) for v in tree_leaves((args, kwargs)))
        return self._given if given else self.default


def is_draw(func) -> bool:
    return isinstance(func, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in func.tags


def require_no_draws(program: Program) -> None:
    """Raises CaptureError if the program draws random numbers: no engine has PyTorch's generator."""
    drawn = next((n for n in program.graph.nodes if is_random(n)), None)
    if drawn is not None:
        raise CaptureError(
            f"random numbers are drawn inside ({op_name(drawn.target).split('.')[0]})",
            where=f'Policy "{program.name}", {line_of(drawn)}',
            why="no engine reproduces PyTorch's random numbers, so golden outputs would differ on every run",
            fix=_fix(drawn))


def _fix(drawn: Node) -> str:
    name = op_name(drawn.target).split(".")[0]
    if any(word in name for word in _BY_TRAINING):
        return ("leave it out, as a policy in use does: training=False (dropout_p=0.0 of an attention), or a module as "
                "nn.Dropout, which eval() turns off")
    if name in _NORMAL:
        return (f"{_INPUT}pass it to the function if that takes noise, else call the function within "
                "vlacompile.drawn_from(normal=noise)")
    if name in _UNIFORM and not (name == "multinomial" and drawn.args[1] != 1):
        return f"{_INPUT}call the function within vlacompile.drawn_from(uniform=noise), noise between 0 and 1"
    return ("draw them outside of the function and make them an input; if they are to be the same in every call, draw "
            "them from a torch.Generator that the function makes and seeds")
