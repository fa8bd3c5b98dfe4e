"""Text inputs: how a policy's token source is filled from a text, as declared by a frontend or factory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from vlart.errors import ConfigError


@dataclass(frozen=True)
class Fit:
    """Padding and truncation of ids to a fixed length. pad: the padding id, appended on `pad_side`. truncate: the side
    that is cut off, or None: a text with too many ids is refused. Sides are keys of vocabulary.TEXT_SIDES."""

    pad: int = 0
    pad_side: str = "right"
    truncate: str | None = None


@dataclass(frozen=True)
class Text:
    """How the runtime converts a text to a source of token ids [1,L].

    tokenizer: the content of the checkpoint's tokenizer.json. mask: the bool source [1,L] of the padding mask (True: a
    token), or
    None. fit: padding and truncation to L; None: as tokenizer.json says. ending: appended to a text that does not end
    with it. max_bytes: longest text, in UTF-8. examples: texts that the policy is known to be used with; the
    tokenizer's
    table is tested on them too.
    """

    tokenizer: str = field(repr=False)
    mask: str | None = None
    fit: Fit | None = None
    ending: str = ""
    max_bytes: int = 2048
    examples: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class TextBuckets:
    """Of a policy that was compiled for several lengths of its text, one backbone each, in their order. mask: the
    source of the padding mask [1,L]. side: where padding is. lengths: tokens that each backbone reads, ascending; the
    last is L."""

    mask: str
    side: str
    lengths: tuple[int, ...]

    def fitting(self, mask: torch.Tensor) -> int:
        """Index of the first that reads all tokens of a mask [1,L]; where it has none, the last: what attends to no
        token may attend to the padding."""
        seen = (mask[0].flip(0) if self.side == "left" else mask[0]).nonzero()
        used = int(seen[-1]) + 1 if len(seen) else self.lengths[-1]
        return next(i for i, n in enumerate(self.lengths) if used <= n)


LONGEST = 1023  # bytes, the limit of a string in a plan


def read_instructions(path: str | Path) -> tuple[str, ...]:
    """The lines of a file, without empty ones. Raises ConfigError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the instructions cannot be read", where=str(path), why=str(error),
                          fix="give a UTF-8 file with one instruction per line") from error
    return check_instructions(tuple(dict.fromkeys(line for line in lines if line.strip())), str(path))


def check_instructions(instructions: tuple[str, ...], where: str = "instructions") -> tuple[str, ...]:
    for text in instructions:
        if len(text.encode()) > LONGEST or any(ord(c) < 32 for c in text):
            raise ConfigError("an instruction cannot be stored", where=where, why=f"{text[:40]!r} is longer than "
                              f"{LONGEST} bytes or has a control character",
                              fix="leave it out, and write it at run time")
    return instructions
