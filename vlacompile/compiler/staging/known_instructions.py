"""Instructions compiled in advance: their token ids, and the precomputed outputs of the stages that depend on the text
alone. If the bundle accepts no other text, these stages are dropped from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged
from vlacompile.tokenize.compile_text import CompiledText
from vlart.errors import ConfigError, ParityError
from vlart.runtime.session import RECORDED, Session
from vlart.runtime.tokenizer import RuntimeTokenizer
from vlart.verify.frames import Frame
from vlart.verify.metrics import examine


@dataclass(frozen=True)
class KnownInstruction:
    """source: name of the source of token ids. values: {source or stage output: its content for this text}."""

    text: str
    source: str
    values: Mapping[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class SpokenText:
    """An instruction, and what is written to the sources of its token ids (and mask)."""

    text: str
    source: str
    writes: Mapping[str, np.ndarray] = field(repr=False)


def tokenize(instructions: tuple[str, ...], texts: tuple[CompiledText, ...],
             example: Mapping[str, torch.Tensor]) -> tuple[SpokenText, ...]:
    """example: inputs of every source. Raises ConfigError if the policy does not declare exactly one text, and
    RuntimeFailure for an instruction that the tokenizer refuses."""
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
    """The stages that depend on the text alone."""
    own = set(spoken[0].writes) if spoken else set()
    return tuple(s.name for s in staged.stages if s.sources and set(s.sources) <= own)


def require_spoken(staged: Staged, spoken: tuple[SpokenText, ...]) -> frozenset[str]:
    """The stages to drop from a bundle that accepts no other text. Raises ConfigError if there are none."""
    names = spoken_stages(staged, spoken)
    if not names:
        raise ConfigError("no stage can be dropped from the bundle", where="--only-instructions",
                          why="no stage depends on the text alone" if spoken else "no instructions are given",
                          fix="build without it" if spoken else "give instructions: --instructions FILE")
    return frozenset(names)


def compile_instructions(spoken: tuple[SpokenText, ...], staged: Staged, frame: Frame) -> tuple[KnownInstruction, ...]:
    """frame: contents of the other sources."""
    text_only, runner, found = spoken_stages(staged, spoken), StageRunner(staged), []
    names = [p.value for s in staged.stages if s.name in text_only for p in s.outputs]
    for one in spoken:
        made = runner.run({n: torch.from_numpy(a) for n, a in (frame.writes | one.writes).items()}, {})
        values = {n: made[n].detach().contiguous().numpy() for n in names}
        found.append(KnownInstruction(one.text, one.source, one.writes | values))
    return tuple(found)


def accept_instructions(path: Path, known: tuple[KnownInstruction, ...], frame: Frame, limit_of: Callable,
                        stand_in: bool = False, native_code: bool = False) -> None:
    """Runs the engines on the token ids of each instruction: they must compute the values that were precomputed.
    limit_of: (name, array) -> limits. stand_in, native_code: see Session. Raises ParityError."""
    if not known:
        return
    with Session(path, threads=1, stand_in=stand_in, accept=RECORDED, native_code=native_code) as session:
        session.select(None)
        for instruction in known:
            for name, array in frame.writes.items():
                session.write(name, instruction.values.get(name, array))
            session.invalidate()
            session.step()
            for name, want in instruction.values.items():
                found = examine(session.read(name), want, limit_of(name, want))
                if not found.passed:
                    raise ParityError(
                        "the engines do not reproduce the stored values of an instruction compiled in advance",
                        where=f'"{instruction.text}", value "{name}"', why=found.text(),
                        fix="report it with the policy; until then, build without --instructions")
