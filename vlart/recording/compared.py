"""Where two computations part: the first value that differs, and which of its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlart.bundle.plan.plan import Plan
from vlart.errors import RuntimeFailure
from vlart.runtime.session import Session
from vlart.vocabulary import NUMPY_DTYPES


@dataclass(frozen=True)
class Difference:
    """what: the value, in words. at: index of the first number that differs, None where it is a status. want, got: that
    number in the recording (or in the first bundle) and now. step: counted from 0. of_values: two bundles were compared
    value by value, in the order in which stages compute them."""

    what: str
    at: tuple[int, ...] | None
    want: object
    got: object
    step: int
    track: int
    time_ns: int
    of_values: bool = False

    def as_dict(self) -> dict:
        return {"value": self.what, "index": None if self.at is None else list(self.at), "step": self.step,
                "first": _plain(self.want), "second": _plain(self.got), "track": self.track, "time_ns": self.time_ns}


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def first_difference(want: np.ndarray, got: np.ndarray) -> tuple[int, ...] | None:
    """Index of the first element whose bits differ. Arrays of one dtype; another shape differs at its beginning."""
    if want.shape != got.shape:
        return (0,) * want.ndim
    width = want.dtype.itemsize
    same = (np.ascontiguousarray(want).view(f"V{width}") == np.ascontiguousarray(got).view(f"V{width}"))
    if same.all():
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmin(same)), want.shape))


class Values:
    """The values of a plan in the order in which its stages write them."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.order = [(stage.name, b.value) for stage in plan.stages for b in stage.outputs]

    def part(self, first: Session, second: Session) -> tuple[str, tuple[int, ...], object, object] | None:
        """(value, index, its numbers) where two sessions part first. Values that the second does not have in the same
        type, and those that neither has computed, are passed over."""
        others = {v.name: v.type for v in second.plan.values}
        for stage, index in self.order:
            value = self.plan.values[index]
            if others.get(value.name) != value.type or value.type.dtype not in NUMPY_DTYPES:
                continue
            try:
                want, got = first.read(value.name), second.read(value.name)
            except RuntimeFailure:
                continue
            at = first_difference(want, got)
            if at is not None:
                return f'"{value.name}" of stage "{stage}"', at, want[at], got[at]
        return None
