"""A policy's declared text -> the tokenizer table of its bundle, checked against the original library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vlacompile.policy.text import Text
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
    from vlacompile.tokenize.read_tokenizer_json import read_tokenizer
    from vlacompile.tokenize.table import tokenizer_bytes
    from vlacompile.tokenize.verify_table import check_tokenizer

    progress(f"compile the tokenizer of {tokens}")
    tokenizer = read_tokenizer(text.tokenizer, fit=text.fit, ending=text.ending)
    table = tokenizer_bytes(tokenizer)
    checked = check_tokenizer(text.tokenizer, tokenizer, table, text.examples)
    return CompiledText(tokens, text.mask, text.max_bytes, table, f"tokenizer of {tokens}: {checked}")
