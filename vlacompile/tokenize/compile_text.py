"""A policy's declared text -> the tokenizer table of its bundle, checked against the original library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from vlacompile.policy.text import Fit, Text
from vlart.errors import ConfigError


@dataclass(frozen=True)
class CompiledText:
    """tokens, mask: sources. table: the content of the bundle's file. note: a summary of the checks."""

    tokens: str
    mask: str | None
    max_bytes: int
    table: bytes = field(repr=False)
    note: str = ""


def compile_text(tokens: str, text: Text, progress: Callable[[str], None] = lambda phase: None) -> CompiledText:
    """tokens: the source. Raises SourceError for an unsupported tokenizer, ParityError if the table gives other ids
    than the original library, ConfigError if that library is not installed."""
    try:
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ConfigError("the original tokenizer cannot be run", where=f'text of "{tokens}"',
                          why="the package tokenizers is not installed", fix="pip install tokenizers") from error
    progress(f"compile the tokenizer of {tokens}")
    table, checked = _table(text.tokenizer, text.fit, text.ending, tuple(text.examples))
    return CompiledText(tokens, text.mask, text.max_bytes, table, f"tokenizer of {tokens}: {checked}")


@functools.lru_cache(maxsize=4)
def _table(tokenizer_json: str, fit: Fit | None, ending: str, examples: tuple[str, ...]) -> tuple[bytes, str]:
    """(the table, what its check compared): seconds, of which several builds in one process pay the first."""
    from vlacompile.tokenize.read_tokenizer_json import read_tokenizer
    from vlacompile.tokenize.table import tokenizer_bytes
    from vlacompile.tokenize.verify_table import check_tokenizer

    tokenizer = read_tokenizer(tokenizer_json, fit=fit, ending=ending)
    table = tokenizer_bytes(tokenizer)
    return table, str(check_tokenizer(tokenizer_json, tokenizer, table, examples))
