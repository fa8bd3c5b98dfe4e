"""Tokenizer calls inside a policy's code: found by running it, and replaced by inputs of the graph.

A tokenizer works on text, which is the host's part. Wherever the code calls one (a processor step, the model itself),
what it returns for the instruction becomes an input; a text that does not depend on the instruction stays a constant.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from vlacompile.frontends.lerobot.read import MASK, TOKENS
from vlacompile.policy.text import Fit, Text
from vlart.errors import SourceError

IDS, PADDING = "input_ids", "attention_mask"
FOR_ONE = "build for the one instruction that it will follow: --instruction TEXT"


@dataclass(frozen=True)
class Call:
    """One call of a tokenizer. texts: as given. settings: the further arguments. tensors: what it returned."""

    tokenizer: Any
    texts: tuple[str, ...]
    settings: dict[str, Any]
    tensors: dict[str, Any]

    def same_place(self, other: Call) -> bool:
        return self.tokenizer is other.tokenizer and self.settings == other.settings


@dataclass(frozen=True)
class Place:
    """A call whose text depends on the instruction. index: among the calls of a run. name: of the source of its ids;
    mask: of their padding mask, None if the code gets none. ending: what the text has after the instruction; None: the
    text is something else."""

    index: int
    call: Call
    name: str
    mask: str | None
    ending: str | None

    def examples(self) -> dict[str, torch.Tensor]:
        return self.of(self.call)

    def of(self, call: Call) -> dict[str, torch.Tensor]:
        """The sources that a call at this place gives."""
        found = {self.name: call.tensors[IDS].to(torch.int64)}
        return found | ({self.mask: call.tensors[PADDING].to(torch.bool)} if self.mask else {})

    def text(self, example: str) -> Text | None:
        """How the runtime fills the source, if its ids follow from the instruction alone."""
        backend = getattr(self.call.tokenizer, "backend_tokenizer", None)
        if self.ending is None or backend is None:
            return None
        side = self.call.settings.get("padding_side") or self.call.tokenizer.padding_side
        fit = Fit(self.call.tokenizer.pad_token_id, side, self.call.tokenizer.truncation_side)
        return Text(backend.to_str(), self.mask, fit, self.ending, examples=(example,))


@dataclass
class Calls:
    """The calls of one run, in their order; each one once, however often the code repeats it. varying: whether a call
    that was padded here would pad to the longest text of its batch."""

    found: list[Call] = field(default_factory=list)
    varying: bool = False

    def index(self, call: Call) -> int:
        for i, known in enumerate(self.found):
            if known.same_place(call) and known.texts == call.texts:
                return i
        self.found.append(call)
        return len(self.found) - 1


def _base() -> type:
    from transformers import PreTrainedTokenizerBase

    return PreTrainedTokenizerBase


def _asked(tokenizer, text, settings: dict[str, Any], returned) -> Call:
    texts = (text,) if isinstance(text, str) else tuple(map(str, text or ()))
    return Call(tokenizer, texts, settings, dict(returned))


@contextlib.contextmanager
def recorded_calls(padded: bool = True) -> Iterator[Calls]:
    """padded: ids of varying number are padded to the greatest number that the call allows."""
    original, calls = _base().__call__, Calls()

    def call(self, text=None, *args, **settings):
        given = _padded(settings) if padded else settings
        calls.varying |= given is not settings
        returned = original(self, text, *args, **given)
        calls.index(_asked(self, text, given, returned))
        return returned

    with mock.patch.object(_base(), "__call__", call):
        yield calls


def _padded(settings: dict[str, Any]) -> dict[str, Any]:
    """A graph has one length: what is padded to the longest text of a batch is padded to max_length."""
    varying = settings.get("padding") in (True, "longest", None, False)
    return settings | {"padding": "max_length"} if varying and settings.get("max_length") else settings


@contextlib.contextmanager
def from_inputs(places: Iterable[Place], inputs: Mapping[str, torch.Tensor], run: Calls) -> Iterator[None]:
    """Within this context, the calls at these places return tensors of `inputs`; others are made. run: the calls of a
    run with the same instruction."""
    original = _base().__call__
    there = [(run.found[place.index], place) for place in places]

    def call(self, text=None, *args, **settings):
        given = _padded(settings)
        asked = _asked(self, text, given, {})
        place = next((p for known, p in there if known.same_place(asked) and known.texts == asked.texts), None)
        if place is None:
            return original(self, text, *args, **given)
        from transformers import BatchEncoding

        ids = inputs[place.name]
        tensors = {name: torch.zeros_like(ids).to(t.dtype) for name, t in place.call.tensors.items()}
        tensors[IDS] = ids.to(place.call.tensors[IDS].dtype)
        if place.mask:
            tensors[PADDING] = inputs[place.mask].to(place.call.tensors[PADDING].dtype)
        return BatchEncoding(tensors)

    with mock.patch.object(_base(), "__call__", call):
        yield


def places_of(where: str, runs: dict[str, Calls]) -> list[Place]:
    """runs: {instruction: the calls}, the first one the example. Raises SourceError if what a tokenizer returns for an
    instruction cannot be an input of a graph."""
    (first, example), *others = runs.items()
    if any(len(calls.found) != len(example.found) for _, calls in others):
        raise SourceError("the instruction decides how often a tokenizer is called", where=where,
                          why="a graph has the same inputs for every instruction", fix=FOR_ONE)
    found: list[Place] = []
    for i, call in enumerate(example.found):
        same = [calls.found[i] for _, calls in others]
        if all(other.texts == call.texts for other in same):
            continue  # a constant
        _require_tensors(where, call, same)
        suffix = f".{len(found) + 1}" if found else ""
        ending = _ending({first: call} | {text: calls.found[i] for text, calls in others})
        found.append(Place(i, call, TOKENS + suffix, MASK + suffix if PADDING in call.tensors else None, ending))
    return found


def _require_tensors(where: str, call: Call, others: list[Call]) -> None:
    what = f"the tokenizer's ids of {call.texts[0][:40]!r} are no input of a graph"
    if not all(isinstance(t, torch.Tensor) for t in call.tensors.values()):
        raise SourceError(what, where=where, why="the code gets them as Python numbers, which no graph contains",
                          fix=FOR_ONE)
    if any(o.tensors[IDS].shape != call.tensors[IDS].shape for o in others) or len(call.texts) != 1:
        raise SourceError(what, where=where, why="their number depends on the instruction: the call has no max_length",
                          fix=FOR_ONE)
    strange = [n for n, t in call.tensors.items() if n not in (IDS, PADDING) and bool(t.any())]
    if strange:
        raise SourceError(what, where=where, why=f"the code also gets {strange[0]}, which differs from zero",
                          fix=FOR_ONE)


def _ending(calls: dict[str, Call]) -> str | None:
    """What every text has after its instruction, if that is all that it has; a text that ends with it is left as it
    is, which is what a runtime's tokenizer does."""
    plain = {text: call.texts[0] for text, call in calls.items() if not text.endswith("\n")}
    endings = {found[len(text):] if found.startswith(text) else None for text, found in plain.items()}
    kept = all(call.texts[0] == text for text, call in calls.items() if text.endswith("\n"))
    return next(iter(endings)) if endings in ({""}, {"\n"}) and kept else None
