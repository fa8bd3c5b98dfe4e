"""`RoutedSession`: a bundle of several backbones behind a router that chooses one per task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from vlacompile.errors import ConfigError, nearest
from vlacompile.runtime.router import Routed, Router
from vlacompile.runtime.session import Session


class RoutedSession:
    """bundle: one with several backbones (vlacompile.join). table, state, log_capacity: as Router's; options: as
    Session's.

    A task begins with its instruction, from which the router chooses the backbone; `session` is then used as usual.
    Raises ConfigError if the table names a backbone that the bundle does not have, or the bundle takes no text.
    """

    def __init__(self, bundle: str | Path, table: str | Path, state: str | Path | None = None, *,
                 log_capacity: int = 64,
                 **options: Any):
        self.router = Router(table, state, log_capacity=log_capacity)
        self.session = Session(bundle, **options)
        plan = self.session.plan
        names = [b.name for b in plan.backbones]
        for backbone in self.router.backbones:
            if backbone not in names:
                raise ConfigError(f'the table routes to "{backbone}", which is not a backbone of the bundle',
                                  where=str(table),
                                  why=nearest(backbone, names) if names else "the bundle is a single policy",
                                  fix="join the policies under the names that the table was fitted with")
        needs = {n: {v for s in plan.stages if n in plan.served_by(s) for v in s.depends} for n in names}
        known = {t.tokens for t in plan.texts} | {i.source for i in plan.instructions}
        self._texts = {n: [plan.values[v].name for v in sorted(known & needs[n])] for n in names}
        for name, texts in self._texts.items():
            if not texts:
                raise ConfigError(f'the backbone "{name}" takes no text', where=str(bundle),
                                  why="the bundle has no tokenizer and no precomputed instructions",
                                  fix="use Router.decide and Session.select instead")

    def begin(self, instruction: str, embedding: Sequence[float] | None = None) -> Routed:
        """Begin a new task: decide, select the backbone, reset the episode, and write the instruction for that
        backbone. embedding: of the instruction, if the table has embeddings; as Router.decide. Raises
        RuntimeFailure."""
        decision = self.router.decide(instruction, embedding)
        self.session.select(decision.backbone)
        self.session.reset()
        for source in self._texts[decision.backbone]:
            self.session.write_text(source, instruction)
        return decision

    def end(self, success: bool) -> None:
        """Report the outcome of the task: updates the posterior, which is on disk when this returns."""
        self.router.report_outcome(success)

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
