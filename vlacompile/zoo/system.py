"""What a module of the zoo says about its system, and what makes its policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vlacompile.policy.policy import Policy
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.names import REAL, SIZES, TINY

__all__ = ["REAL", "SIZES", "TINY", "Published", "System"]



@dataclass(frozen=True)
class Published:
    """A figure that others published, shown beside ours. what: "latency", "rate", "success", "memory" or
    "parameters"; conditions: hardware, precision and what was timed; source: where it stands."""

    what: str
    value: float
    unit: str
    conditions: str
    source: str


@dataclass(frozen=True)
class System:
    """A system of the survey.

    title: as its authors write it.
    number: its number in the survey, 1 to 29.
    architecture: paper and code that the graph was written from.
    code, weights: licences of the authors' code and weights; "" if none are published.
    make: (variant, size) -> Policy. size "tiny" has small widths and depths but every structural constant of "real":
        cameras, mask blocks, horizon, iterations, window. Weights are random.
    variants: names of its versions, the first is the default; empty: there is one.
    says: what each of them is, in one line; of a system without variants, what it is.
    assumptions: what is not published and was chosen here; a system without public code is a reconstruction.
    checkpoint: how published weights of this very module are named; None if there are none.
    unread: why published weights are not read, of a system whose authors have some and which has no checkpoint.
    """

    title: str
    year: int
    number: int
    architecture: str
    make: Callable[[str, str], Policy]
    code: str = ""
    weights: str = ""
    says: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    checkpoint: Checkpoint | None = None
    unread: str = ""

    @property
    def is_reconstruction(self) -> bool:
        return bool(self.assumptions)
