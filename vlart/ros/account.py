"""`Account`: what became of every message of a topic. None is lost silently: received = used + superseded + refused +
waiting, at any moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace


@dataclass
class Account:
    """used: part of an observation that was handed over. superseded: a newer one took its place. refused: {why: how
    many}. waiting: may still become part of one. last_refusal: in words. said: {why: the last
    refusal for it, in words}. lost: before they came, as the middleware tells it; they are not among those received."""

    received: int = 0
    used: int = 0
    superseded: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    last_refusal: str = ""
    said: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    @property
    def waiting(self) -> int:
        return self.received - self.used - self.superseded - self.refused.total()

    def copy(self) -> Account:
        return replace(self, refused=Counter(self.refused), said=dict(self.said))

    def refuse(self, why: str, said: str = "", count: int = 1) -> None:
        self.refused[why] += count
        self.last_refusal = self.said[why] = said or why
