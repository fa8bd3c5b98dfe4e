"""`RoutedSession`: a bundle of several backbones with a router in front, so that each task runs on what it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from vlacompile.errors import ConfigError, nearest
from vlacompile.runtime.router import Routed, Router
from vlacompile.runtime.session import Session


class RoutedSession:
    """bundle: of several backbones (vlacompile.join). table, state, log_capacity: as Router's; options: as Session's.
    patience: of how many times the replans that the chosen backbone's successes took on average the task may take until
    the last backbone goes on with it; None: it is left to the one that began.

    A task begins with its instruction, which decides the backbone; `session` is then driven as ever, and stepped by
    `step`. Raises ConfigError where the table has a backbone that the bundle has not, the bundle takes no text, or
    patience is below 1.
    """

    def __init__(self, bundle: str | Path, table: str | Path, state: str | Path | None = None, *,
                 patience: float | None = None, log_capacity: int = 64, **options):
        if patience is not None and not 1.0 <= patience < math.inf:
            raise ConfigError(f"a patience of {patience} is none", where="RoutedSession", why="it is a factor from 1 on",
                              fix="give 1.3, say, or None to leave every task to the backbone that began")
        self.router = Router(table, state, log_capacity=log_capacity)
        self.session = Session(bundle, **options)
        plan = self.session.plan
        names = [b.name for b in plan.backbones]
        for backbone in self.router.backbones:
            if backbone not in names:
                raise ConfigError(f'the table routes to "{backbone}", which is no backbone of the bundle', where=str(table),
                                  why=nearest(backbone, names) if names else "the bundle is one policy",
                                  fix="join the policies under the names that the table was fitted with")
        needs = {n: {v for s in plan.stages if n in plan.served_by(s) for v in s.depends} for n in names}
        known = {t.tokens for t in plan.texts} | {i.source for i in plan.instructions}
        self._patience, self._last = patience, self.router.backbones[-1]
        self._left = math.inf  # replans until the last backbone takes over
        self.escalated = False
        self._texts = {n: [plan.values[v].name for v in sorted(known & needs[n])] for n in names}
        for name, texts in self._texts.items():
            if not texts:
                raise ConfigError(f'the backbone "{name}" takes no text', where=str(bundle),
                                  why="the policy brought no tokenizer, and no instruction is known",
                                  fix="select it yourself, with Router.decide and Session.select")

    def begin(self, instruction: str, embedding: Sequence[float] | None = None) -> Routed:
        """A new task: decides, selects, forgets the last episode, and writes the instruction for that backbone.
        embedding: of the instruction, where the table has such; as Router.decide. Raises RuntimeFailure."""
        decision = self.router.decide(instruction, embedding)
        usual = decision.replans[self.router.backbones.index(decision.backbone)]
        waits = self._patience is not None and decision.backbone != self._last and usual > 0
        self._left = math.ceil(self._patience * usual) if waits else math.inf
        self.escalated, self.backbone, self._instruction = False, decision.backbone, instruction
        self.session.select(decision.backbone)
        self.session.reset()
        self._tell()
        return decision

    def step(self, deadline_us: int | None = None) -> None:
        """As Session.step; past the task's patience with the last backbone, from this step to the end of the task."""
        if self._left <= 0:
            self._left, self.escalated, self.backbone = math.inf, True, self._last
            self.session.select(self.backbone)
            self._tell()
        self._left -= 1
        self.session.step(deadline_us)

    def _tell(self) -> None:
        for source in self._texts[self.backbone]:
            self.session.write_text(source, self._instruction)

    def end(self, success: bool) -> None:
        """How the task ended: the posterior of the backbone that began it learns that, on disk when this returns. One
        that was taken over is no success of it."""
        self.router.report_outcome(success and not self.escalated)

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> RoutedSession:
        return self

    def __exit__(self, *_) -> None:
        self.close()
