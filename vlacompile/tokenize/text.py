"""A text that a policy is given: how its token source is filled, declared by a frontend or factory, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vlacompile.errors import ConfigError
from vlacompile.tokenize.tokenizer import Fit


@dataclass(frozen=True)
class Text:
    """How the runtime makes a source of token ids [1,L] of a text.

    tokenizer: the text of the checkpoint's tokenizer.json. mask: the bool source [1,L] that says where tokens are, or
    None. fit: how ids come to L; None: as tokenizer.json says. ending: put behind a text that does not end with it.
    max_bytes: longest text, in UTF-8. examples: texts that the policy is known to be used with; the table is checked
    on them too.
    """

    tokenizer: str = field(repr=False)
    mask: str | None = None
    fit: Fit | None = None
    ending: str = ""
    max_bytes: int = 2048
    examples: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class CompiledText:
    """tokens, mask: sources. table: the content of the bundle's file. note: what was checked."""

    tokens: str
    mask: str | None
    max_bytes: int
    table: bytes = field(repr=False)
    note: str = ""


def compile_text(tokens: str, text: Text, progress: Callable[[str], None] = lambda phase: None) -> CompiledText:
    """tokens: the source. Raises SourceError for a tokenizer that is not supported, ParityError where the table gives
    other ids than the original, ConfigError without the package that knows the original."""
    try:
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ConfigError("the original tokenizer cannot be run", where=f'text of "{tokens}"',
                          why="the package tokenizers is not installed", fix="pip install tokenizers") from error
    from vlacompile.tokenize.binary import tokenizer_bytes
    from vlacompile.tokenize.check import check_tokenizer
    from vlacompile.tokenize.read import read_tokenizer

    progress(f"take over the tokenizer of {tokens}")
    tokenizer = read_tokenizer(text.tokenizer, fit=text.fit, ending=text.ending)
    table = tokenizer_bytes(tokenizer)
    checked = check_tokenizer(text.tokenizer, tokenizer, table, text.examples)
    return CompiledText(tokens, text.mask, text.max_bytes, table, f"tokenizer of {tokens}: {checked}")


LONGEST = 1023  # bytes: of a string of a plan


def read_instructions(path: str | Path) -> tuple[str, ...]:
    """The lines of a file, without empty ones. Raises ConfigError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the instructions cannot be read", where=str(path), why=str(error),
                          fix="give a UTF-8 file with an instruction per line") from error
    return check_instructions(tuple(dict.fromkeys(line for line in lines if line.strip())), str(path))


def check_instructions(instructions: tuple[str, ...], where: str = "instructions") -> tuple[str, ...]:
    for text in instructions:
        if len(text.encode()) > LONGEST or any(ord(c) < 32 for c in text):
            raise ConfigError("an instruction cannot be stored", where=where, why=f"{text[:40]!r}: of more than "
                              f"{LONGEST} bytes, or with a control character", fix="leave it out, and write it at run time")
    return instructions
