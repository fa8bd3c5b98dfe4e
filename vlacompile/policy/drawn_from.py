"""Random numbers that a function draws, taken from tensors instead: a compiled policy gets them as inputs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vlart.errors import SourceError

_TENSOR = torch.Tensor


@contextlib.contextmanager
def drawn_from(normal: torch.Tensor | None = None, uniform: torch.Tensor | None = None) -> Iterator[None]:
    """Within this context, PyTorch's draws take the numbers of `normal` (standard normal) and `uniform` (in [0, 1)), in
    the order of the calls and of their elements; generators and seeds are not read. A policy whose code draws inside
    becomes a function of its inputs, without a change of that code:

        def act(obs, noise):  # sources: noise=vlacompile.Source("step")
            with vlacompile.drawn_from(normal=noise):
                return {"action": policy.sample_actions(obs)}

    normal: for randn, randn_like, normal_, torch.normal and the distributions made of them. uniform: for rand,
    rand_like, uniform_, exponential_ and gumbel_softmax (-log(1 - u)), bernoulli, bernoulli_, randint (rounded down),
    and multinomial of one sample (one number per row, by the inverse of the cumulative distribution). Draws of a kind
    for which there is no tensor stay draws.
    Raises SourceError if the function draws more numbers than there are, or fewer.
    """
    kinds = {"normal": normal, "uniform": uniform}
    rows = {kind: _Row(kind, t.reshape(-1)) for kind, t in kinds.items() if t is not None}
    with _Draws(rows):
        yield
    for row in rows.values():
        if row.used != len(row.numbers):
            raise _count(row, f"the function draws {row.used}")


class RecordedDraws:
    """What a function drew: shapes of the draws of standard normal numbers, and of those in [0, 1), in their order."""

    def __init__(self) -> None:
        self.normal: list[tuple[int, ...]] = []
        self.uniform: list[tuple[int, ...]] = []


@contextlib.contextmanager
def recorded_draws(seed: int = 0) -> Iterator[RecordedDraws]:
    """Within this context, the draws that `drawn_from` takes from tensors are of a generator with this seed: the same
    ones in every run of the same function, whatever else was drawn before. What they were is recorded."""
    found = RecordedDraws()
    kinds = {"normal": (torch.randn, found.normal), "uniform": (torch.rand, found.uniform)}
    with _Draws({kind: _Generated(kind, draw, shapes, seed) for kind, (draw, shapes) in kinds.items()}):
        yield found


class _Row:
    """The numbers of one kind, of which `used` are taken."""

    def __init__(self, kind: str, numbers: torch.Tensor):
        self.kind, self.numbers, self.used = kind, numbers, 0

    def take(self, shape: Sequence[int], like: torch.dtype | None = None) -> torch.Tensor:
        count = math.prod(shape)
        if self.used + count > len(self.numbers):
            raise _count(self, f"the function draws {self.used + count} or more")
        taken = self.numbers[self.used: self.used + count].reshape(tuple(shape))
        self.used += count
        return taken if like is None else taken.to(like)


class _Generated(_Row):
    """Numbers of a seeded generator, as many as are asked for."""

    def __init__(self, kind: str, draw: Callable[..., torch.Tensor], shapes: list[tuple[int, ...]], seed: int):
        super().__init__(kind, torch.empty(0))
        self.draw, self.shapes, self.generator = draw, shapes, torch.Generator().manual_seed(seed)

    def take(self, shape: Sequence[int], like: torch.dtype | None = None) -> torch.Tensor:
        self.shapes.append(tuple(shape))
        with torch._C.DisableTorchFunction():
            return self.draw(tuple(shape), generator=self.generator).to(like or torch.float32)


def _count(row: _Row, drawn: str) -> SourceError:
    return SourceError(
        f"{len(row.numbers)} {row.kind} random numbers are given, and {drawn}", where=f"drawn_from({row.kind}=...)",
        why="every draw takes the next numbers, and all must be used",
        fix="give the tensor as many elements as the function draws in one call")


class _Draws(TorchFunctionMode):
    def __init__(self, rows: dict[str, _Row]):
        super().__init__()
        self.normal, self.uniform = rows.get("normal"), rows.get("uniform")

    def __torch_function__(self, func: Callable, types: Sequence[type], args: tuple = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        draw = _NORMAL.get(func) if self.normal is not None else None
        if draw is not None:
            return draw(self.normal, *args, **kwargs)
        draw = _UNIFORM.get(func) if self.uniform is not None else None
        if draw is not None:
            return draw(self.uniform, *args, **kwargs)
        return func(*args, **kwargs)


def _fresh(row: _Row, *size: Any, dtype: torch.dtype | None = None, generator: Any = None,
           **layout: Any) -> torch.Tensor:
    shape = layout["size"] if "size" in layout else size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    return row.take(shape, dtype or torch.get_default_dtype()).clone()  # what is drawn may be written into


def _like(row: _Row, tensor: torch.Tensor, dtype: torch.dtype | None = None, **layout: Any) -> torch.Tensor:
    return row.take(tensor.shape, dtype or tensor.dtype).clone()


def _normal_(row: _Row, tensor: torch.Tensor, mean: float = 0.0, std: float = 1.0,
             generator: Any = None) -> torch.Tensor:
    return tensor.copy_(row.take(tensor.shape, tensor.dtype) * std + mean)


def _normal(row: _Row, mean: Any, std: Any = 1.0, size: Any = None, generator: Any = None,
            **layout: Any) -> torch.Tensor:
    tensors = [t for t in (mean, std) if isinstance(t, torch.Tensor)]
    shape = size if size is not None else torch.broadcast_shapes(*(t.shape for t in tensors))
    return row.take(shape, tensors[0].dtype if tensors else None) * std + mean


def _uniform_(row: _Row, tensor: torch.Tensor, low: float = 0.0, high: float = 1.0,
              generator: Any = None) -> torch.Tensor:
    return tensor.copy_(row.take(tensor.shape, tensor.dtype) * (high - low) + low)


def _exponential_(row: _Row, tensor: torch.Tensor, lambd: float = 1.0, generator: Any = None) -> torch.Tensor:
    least = torch.finfo(tensor.dtype).eps / 2  # as PyTorch, which draws no zero
    return tensor.copy_(-torch.log1p(-row.take(tensor.shape, tensor.dtype)).clamp(max=-least) / lambd)


def _gumbel_softmax(row: _Row, logits: torch.Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                    dim: int = -1) -> torch.Tensor:
    drawn = _exponential_(row, torch.empty_like(logits))
    soft = ((logits - drawn.log()) / tau).softmax(dim)
    if not hard:
        return soft
    return torch.zeros_like(logits).scatter(dim, soft.argmax(dim, keepdim=True), 1.0) - soft.detach() + soft


def _bernoulli(row: _Row, probability: torch.Tensor, generator: Any = None) -> torch.Tensor:
    return (row.take(probability.shape, probability.dtype) < probability).to(probability.dtype)


def _bernoulli_(row: _Row, tensor: torch.Tensor, p: Any = 0.5, generator: Any = None) -> torch.Tensor:
    return tensor.copy_(row.take(tensor.shape) < p)


def _randint(row: _Row, *given: Any, low: int = 0, high: int | None = None, size: Any = None,
             dtype: torch.dtype | None = None, generator: Any = None, **layout: Any) -> torch.Tensor:
    """torch.randint([low,] high, size)"""
    *bounds, size = given if size is None else (*given, size)
    low, high = bounds if len(bounds) == 2 else (low, bounds[0]) if high is None else ([*bounds, low][0], high)
    count = high - low
    return torch.floor(row.take(size) * count).clamp(max=count - 1).to(dtype or torch.int64) + low


def _multinomial(row: _Row, weights: torch.Tensor, num_samples: int, replacement: bool = False,
                 generator: Any = None) -> torch.Tensor:
    if num_samples != 1:
        raise SourceError(
            f"torch.multinomial draws {num_samples} samples", where="drawn_from(uniform=...)",
            why="samples of one row without replacement depend on one another",
            fix="draw one sample per row")
    total = torch.cumsum(weights, -1)
    chosen = (total <= row.take((*weights.shape[:-1], 1), weights.dtype) * total[..., -1:]).sum(-1, keepdim=True)
    return chosen.clamp(max=weights.shape[-1] - 1)


_NORMAL: dict[Callable, Callable[..., torch.Tensor]] = {
    torch.randn: _fresh, torch.randn_like: _like, _TENSOR.normal_: _normal_, torch.normal: _normal}
_UNIFORM: dict[Callable, Callable[..., torch.Tensor]] = {
    torch.rand: _fresh, torch.rand_like: _like, _TENSOR.uniform_: _uniform_,
    _TENSOR.exponential_: _exponential_, torch.nn.functional.gumbel_softmax: _gumbel_softmax,
    torch.bernoulli: _bernoulli, _TENSOR.bernoulli: _bernoulli, _TENSOR.bernoulli_: _bernoulli_,
    torch.randint: _randint, torch.multinomial: _multinomial, _TENSOR.multinomial: _multinomial}
