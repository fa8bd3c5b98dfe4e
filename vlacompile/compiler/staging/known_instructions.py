"""Instructions compiled in advance: their ids, and what the stages make of them that depend on nothing else. Where no
other text will come, these stages leave the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged
from vlacompile.errors import ConfigError, ParityError
from vlacompile.runtime.session import RECORDED, Session
from vlacompile.runtime.tokenizer import RuntimeTokenizer
from vlacompile.tokenize.compile_text import CompiledText
from vlacompile.verify.frames import Frame
from vlacompile.verify.metrics import compare


@dataclass(frozen=True)
class KnownInstruction:
    """source: of the token ids. values: {source or output of a stage: what it holds after this text}."""

    text: str
    source: str
    values: Mapping[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class SpokenText:
    """An instruction, and what the sources of its tokens (and mask) hold then."""

    text: str
    source: str
    writes: Mapping[str, np.ndarray] = field(repr=False)


def tokenize(instructions: tuple[str, ...], texts: tuple[CompiledText, ...],
             example: Mapping[str, torch.Tensor]) -> tuple[SpokenText, ...]:
    """example: of every source. Raises ConfigError where it is not plain which source they are for, and
    RuntimeFailure for one that the tokenizer refuses."""
    if not instructions:
        return ()
    if len(texts) != 1:
        raise ConfigError("instructions cannot be compiled", where="instructions",
                          fix="declare Policy(texts=...) for one "
                          "source of token ids", why=f"the policy declares {len(texts)} texts, not one")
    text, found = texts[0], []
    tokenizer, tokens = RuntimeTokenizer(text.table, text.max_bytes), example[text.tokens].numpy()
    for instruction in instructions:
        ids, mask = tokenizer.fill(instruction, tokens.shape[1])
        writes = {text.tokens: ids[None].astype(tokens.dtype)}
        writes |= {text.mask: mask[None]} if text.mask is not None else {}
        found.append(SpokenText(instruction, text.tokens, writes))
    return tuple(found)


def spoken_stages(staged: Staged, spoken: tuple[SpokenText, ...]) -> tuple[str, ...]:
    """The stages that depend on nothing but the text."""
    own = set(spoken[0].writes) if spoken else set()
    return tuple(s.name for s in staged.stages if s.sources and set(s.sources) <= own)


def require_spoken(staged: Staged, spoken: tuple[SpokenText, ...]) -> frozenset[str]:
    """What leaves the bundle where no other text will come. Raises ConfigError where that is nothing."""
    names = spoken_stages(staged, spoken)
    if not names:
        raise ConfigError("no stage can leave the bundle", where="--only-instructions",
                          why="no stage depends on the text alone" if spoken else "no instructions are given",
                          fix="build without it" if spoken else "give them: --instructions FILE")
    return frozenset(names)


def compile_instructions(spoken: tuple[SpokenText, ...], staged: Staged, frame: Frame) -> tuple[KnownInstruction, ...]:
    """frame: what the other sources hold."""
    apart, runner, found = spoken_stages(staged, spoken), StageRunner(staged), []
    names = [p.value for s in staged.stages if s.name in apart for p in s.outputs]
    for one in spoken:
        made = runner.run({n: torch.from_numpy(a) for n, a in (frame.writes | one.writes).items()}, {})
        values = {n: made[n].detach().contiguous().numpy() for n in names}
        found.append(KnownInstruction(one.text, one.source, one.writes | values))
    return tuple(found)


def accept_instructions(path: Path, known: tuple[KnownInstruction, ...], frame: Frame, limit_of: Callable,
                        stand_in: bool = False) -> None:
    """Each one by its text in one session and by its ids in another: what was computed in advance is what the engines
    compute. limit_of: (name, array) -> limits. stand_in: as of Session. Raises ParityError."""
    if not known:
        return
    with Session(path, threads=1, stand_in=stand_in, accept=RECORDED) as session:
        session.select(None)
        for instruction in known:
            for name, array in frame.writes.items():
                session.write(name, instruction.values.get(name, array))
            session.invalidate()
            session.step()
            for name, want in instruction.values.items():
                got, limit = compare(session.read(name), want), limit_of(name, want)
                if not got.within(limit):
                    raise ParityError(
                        "an instruction compiled in advance is not what the stages compute",
                        where=f'"{instruction.text}", '
                        f'value "{name}"', why=f"max_abs {got.max_abs:.3g} (limit {limit.max_abs:.3g})",
                        fix="report it with the policy; until then, build without --instructions")
