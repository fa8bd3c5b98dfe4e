"""Values that a step takes from the one before: an output of the inference function that is an input of its next call.

Owns the declaration, and what an input is before the first step. Must not know graphs or the runtime.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from vlacompile.policy import type_checks as declared
from vlacompile.policy.function_call import place_of
from vlart.errors import CaptureError, SourceError, nearest
from vlart.vocabulary import LIFETIMES

BEGUN = "begun"  # of a value whose first content is computed: whether there was a step before


@dataclass(frozen=True)
class Carried:
    """What an input of the inference function holds: nothing that the robot writes, but an output of the step before.

    output: name of the returned tensor that the next step takes, of the input's shape and dtype.
    initial: what the first step takes: a tensor, or a function of sources (by name) that computes it.
    until: what ends it, so that the next step is a first one again: "episode" (`session.reset()`), or "task" (a new
        instruction too).
    A step that fails or is cancelled changes nothing.
    """

    output: str
    initial: torch.Tensor | Callable[..., torch.Tensor]
    until: str = "episode"

    def __post_init__(self) -> None:
        where = "vlacompile.Carried(...)"
        if not isinstance(self.output, str) or not self.output:
            declared.refuse(f"{self.output!r} is not a name", where, "it names a tensor that the function returns",
                            "give a non-empty string")
        if not isinstance(self.until, str) or self.until not in LIFETIMES:
            raise SourceError(f'"{self.until}" is not a lifetime', where="vlacompile.Carried(until=...)",
                              why=nearest(str(self.until), LIFETIMES), fix='give "episode" or "task"')
        if isinstance(self.initial, torch.Tensor):
            object.__setattr__(self, "initial", self.initial.detach().clone())
            _check_initial(self.initial, f"{where}, initial of {self.output}")
        elif not callable(self.initial):
            declared.refuse(f"{type(self.initial).__name__} is no first content", f"{where}, initial",
                            "it is neither a tensor nor a function that computes one",
                            "give e.g. torch.zeros(1, 64)")


@dataclass(frozen=True)
class CarriedInput:
    """One carried input of the traced function. next: the returned value that the next step takes. initial: the first
    content, as it is kept between steps. until: a key of vocabulary.LIFETIMES. dtype: of the function, which what is
    kept is converted to and from."""

    next: str
    initial: torch.Tensor
    until: str
    dtype: torch.dtype


def _check_initial(tensor: torch.Tensor, where: str) -> None:
    if tensor.dim() == 0:
        declared.refuse("the first content of a carried value is a number without dimensions", where,
                        "values between steps are tensors of at least one dimension",
                        "give it as [1]: number.reshape(1)")
    if tensor.is_floating_point() and not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
        declared.refuse("the first content of a carried value holds NaN or infinity", where,
                        "what the first step reads would be no number",
                        "give finite numbers, and hide by a mask what is not there yet")


def first_content(name: str, carried: Carried, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What a first step takes, of the sources as they are then."""
    if isinstance(carried.initial, torch.Tensor):
        return carried.initial
    found = computed(carried.initial, inputs)
    if not isinstance(found, torch.Tensor) or found.dim() == 0:
        raise CaptureError(f'the first content of "{name}" is {type(found).__name__} without dimensions'
                           if isinstance(found, torch.Tensor) else f'the first content of "{name}" is no tensor',
                           where="vlacompile.Carried(initial=...)" + place_of(carried.initial),
                           why=f"the function returns a {type(found).__name__}",
                           fix="return a tensor of at least one dimension, e.g. number.reshape(1)")
    return found


def computed(function: Callable[..., torch.Tensor], inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The function of those inputs that it names as its arguments. Raises CaptureError where one is none of them."""
    known = inspect.signature(getattr(function, "forward", function)).parameters
    kinds = [p.kind for p in known.values()]
    every = inspect.Parameter.VAR_KEYWORD in kinds
    lost = [n for n, p in known.items() if n not in inputs and p.default is inspect.Parameter.empty
            and p.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)]
    if lost:
        raise CaptureError(f'the first content of a carried value is computed of "{lost[0]}", which is no source',
                           where="vlacompile.Carried(initial=...)" + place_of(function),
                           why=nearest(lost[0], inputs), fix="name sources of the policy as its arguments")
    return function(**{n: t for n, t in inputs.items() if every or n in known})


def require_fitting(policy: str, name: str, kept: CarriedInput, made: torch.Tensor) -> None:
    """Raises CaptureError where a step could not read what the one before made."""
    shape = tuple(kept.initial.shape)
    if tuple(made.shape) == shape and made.dtype == kept.dtype:
        return
    say = lambda dtype, dims: f"{str(dtype).removeprefix('torch.')}{list(dims)}"
    grows = made.dim() == len(shape) and made.dtype == kept.dtype and made.numel() > kept.initial.numel()
    raise CaptureError(f'"{kept.next}" does not fit "{name}", which takes it in the next step',
                       where=f'Policy "{policy}", carried["{name}"]',
                       why=f"it is {say(made.dtype, made.shape)}, and {say(kept.dtype, shape)} is read",
                       fix="give it room for all that is kept, and write row k % rows of it: torch.where(row, new, old)"
                       if grows else "return it in the shape and dtype of its first content")
