"""The content of a tokenizer.json, wherever it is, and encoding with it. Must not know models."""

from __future__ import annotations

from pathlib import Path

import torch

from vlacompile.frontends.hub import directory
from vlacompile.frontends.sentencepiece_model import from_sentencepiece
from vlart.errors import SourceError

TOKENIZER, PIECES = "tokenizer.json", Path("tokenizer.model")


def tokenizer_json(source: str | Path, pieces: bool = False) -> str:
    """source: the file, a directory with it, or the name of one on the Hub. pieces: whether a SentencePiece model may
    be in its place, which does not say what is added around a text. Raises SourceError."""
    file = Path(source)
    if file.suffix not in (".json", PIECES.suffix):
        file = directory(source, weights=False) / TOKENIZER
    if file.suffix != PIECES.suffix and not file.is_file() and (file.parent / PIECES).is_file():
        file = file.parent / PIECES
    if not file.is_file():
        raise SourceError(f"there is no {TOKENIZER}", where=str(source), why="the policy's text is encoded with it",
                          fix="give the file, or a directory or name on the Hub with it; transformers' "
                              "save_pretrained writes one")
    if file.suffix == PIECES.suffix:
        if not pieces:
            raise _only_pieces(file)
        return from_sentencepiece(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SourceError("the tokenizer cannot be read", where=str(file), why=str(error),
                          fix=f"copy {TOKENIZER} again") from error
    _opened(text, str(file))
    return text


def _only_pieces(file: Path) -> SourceError:
    """Transformers' class for a model adds to a text, and writes that and the pieces into one file."""
    folder = repr(str(file.parent))
    return SourceError("the tokenizer is a SentencePiece model", where=str(file),
                       why=f"{TOKENIZER}, which has its pieces and what the model adds to a text, is not there",
                       fix='pip install transformers sentencepiece protobuf; python -c "from transformers import '
                           f'AutoTokenizer as T; T.from_pretrained({folder}).save_pretrained({folder})" writes it')


def _opened(text: str, where: str):
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SourceError("the tokenizer cannot be run", where=where, why="the package tokenizers is not installed",
                          fix="pip install tokenizers") from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise SourceError("the tokenizer cannot be read", where=where, why=str(error).splitlines()[0],
                          fix=f"copy {TOKENIZER} again") from error


def encode(tokenizer: str, text: str, length: int, pad: int = 0, cut: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids int64 [1,length], padded on the right, and the padding mask bool [1,length]. cut: whether a text with too
    many tokens loses its end; else it is refused with SourceError."""
    opened = _opened(tokenizer, TOKENIZER)
    opened.no_padding()
    opened.no_truncation()
    ids = opened.encode(text).ids
    if len(ids) > length and not cut:
        raise SourceError("the text has too many tokens", where=repr(text),
                          why=f"they are {len(ids)}, the policy takes {length}", fix="shorten it")
    ids = ids[:length]
    return torch.tensor([ids + [pad] * (length - len(ids))]), torch.arange(length)[None] < len(ids)
