"""`RoutedSession`: a bundle of several backbones behind a router that chooses one per task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlart.bundle.plan.plan import Plan, TextInput
from vlart.errors import ConfigError, RuntimeFailure, nearest
from vlart.files.regular import read_below
from vlart.runtime.router import Routed, Router
from vlart.runtime.session import Session
from vlart.runtime.tokenizer import RuntimeTokenizer

if TYPE_CHECKING:
    from typing import Self  # Python 3.11


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
        self._begun = False
        plan, recorder = self.session.plan, self.session.recorder
        require_backbones(self.router, plan, table, recorder is not None)
        if recorder is not None:
            self.router.record(recorder)
        names = [b.name for b in plan.backbones]
        needs = {n: {v for s in plan.stages if n in plan.served_by(s) for v in s.depends} for n in names}
        known = {t.tokens for t in plan.texts} | {i.source for i in plan.instructions}
        self._texts = {n: [plan.values[v].name for v in sorted(known & needs[n])] for n in names}
        asked = {name for texts in self._texts.values() if len(texts) > 1 for name in texts}
        self._readers = {plan.values[text.tokens].name: _TextReader(Path(bundle), plan, text) for text in plan.texts
                         if text.tokenizer is not None and plan.values[text.tokens].name in asked}
        for name, texts in self._texts.items():
            if not texts:
                raise ConfigError(f'the backbone "{name}" takes no text', where=str(bundle),
                                  why="the bundle has no tokenizer and no precomputed instructions",
                                  fix="use Router.decide and Session.select instead")

    def begin(self, instruction: str, embedding: Sequence[float] | None = None) -> Routed:
        """Begin a new task: decide, write the instruction for that backbone, select it, and begin an episode.
        embedding: of the instruction, if the table has embeddings; as Router.decide. Raises RuntimeFailure; an
        instruction that is refused changes neither backbone nor episode, and has no outcome."""
        self._begun = False
        decision = self.router.decide(instruction, embedding)
        texts = self._texts[decision.backbone]
        refusing = [t for t in texts if len(texts) > 1 and not self._takes(t, instruction)]
        for source in [*refusing, *texts]:  # what is refused is refused before any is written
            self.session.write_text(source, instruction)
        self.session.select(decision.backbone)
        self.session.reset()
        self._begun = True
        return decision

    def _takes(self, source: str, instruction: str) -> bool:
        """Whether the session will take this text there."""
        plan, reader = self.session.plan, self._readers.get(source)
        known = any(i.text == instruction and plan.values[i.source].name == source for i in plan.instructions)
        return known or (reader is not None and reader.reads(instruction))

    def end(self, success: bool) -> None:
        """Report the outcome of the task: updates the posterior, which is on disk when this returns. Raises
        RuntimeFailure if none was begun since."""
        if not self._begun:
            raise RuntimeFailure("there is no task whose outcome this is", where="RoutedSession.end",
                                 why="begin() was not called since the last end(), or refused its instruction",
                                 fix="call it once for every task that began", status="BAD_ARGUMENT")
        self._begun = False
        self.router.report_outcome(success)

    def close(self) -> None:
        self.router.close()
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _TextReader:
    """The tokenizer of one of the bundle's texts, for asking it alone."""

    def __init__(self, bundle: Path, plan: Plan, text: TextInput):
        assert text.tokenizer is not None
        file = plan.files[text.tokenizer]
        self._tokenizer = RuntimeTokenizer(read_below(bundle, file.path, file.bytes), text.max_bytes)
        self._length = plan.values[text.tokens].type.dims[-1]

    def reads(self, instruction: str) -> bool:
        try:
            self._tokenizer.fill(instruction, self._length)
        except RuntimeFailure:
            return False
        return True


def require_backbones(router: Router, plan: Plan, table: str | Path, recorded: bool = False) -> None:
    """Raises ConfigError where the table, which is at this path, routes to a backbone that a bundle does not have; and,
    recorded, where it has them in another order: a recording has a decision's numbers, and of names the plan's."""
    names = [b.name for b in plan.backbones]
    if plan.buckets:
        raise ConfigError("the text decides which backbone of the bundle is run", where=str(table),
                          why="they are lengths of a text, not policies to choose from",
                          fix="use a Session, or join policies of one text length")
    for backbone in router.backbones:
        if backbone not in names:
            raise ConfigError(f'the table routes to "{backbone}", which is not a backbone of the bundle',
                              where=str(table),
                              why=nearest(backbone, names) if names else "the bundle is a single policy",
                              fix="join the policies under the names that the table was fitted with")
    if recorded and list(router.backbones) != names[: len(router.backbones)]:
        raise ConfigError("the table has the backbones in another order than the bundle", where=str(table),
                          why=f"{', '.join(router.backbones)}; the bundle: {', '.join(names)}; a recording would name "
                              "one where it was the other",
                          fix="build the bundle with the policies in the table's order, or do not record")
