"""The host's part of a LeRobot checkpoint whose policy takes tokens: text -> tokens, by the checkpoint's own tokenizer.

The settings (tokenizer, length, padding, line feed) are in policy_preprocessor.json. Needs only the package
`tokenizers`, neither LeRobot nor transformers; the tests compare it with both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from vlacompile.frontends.lerobot.checkpoint import Checkpoint, Tokenization
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.lerobot.normalise import normalise
from vlacompile.frontends.lerobot.read import MASK, STATE, TOKENS, open_checkpoint
from vlart.errors import ConfigError, SourceError
from vlart.serve.refusal import Refusal

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"

Instructions = Callable[[str], dict[str, np.ndarray]]
Prompts = Callable[[str, np.ndarray], dict[str, np.ndarray]]


def read_instructions(path: str | Path, sources: Mapping[str, object]) -> Instructions:
    """text -> {"observation.language.tokens": i64[1,L], "observation.language.attention_mask": bool[1,L]}.

    path: checkpoint directory; its weights are not needed. sources: names of the bundle's sources. Raises SourceError,
    and ConfigError if the policy's tokens contain more than the text (its state, its images)."""
    path = Path(path)
    checkpoint, family = open_checkpoint(path, weights=False)
    rule = _rule(checkpoint, sources)
    if family.prompt is not None or family.tokens is not None:
        raise ConfigError("this policy's tokens do not follow from the instruction alone", where=str(path),
                          why="its tokens also contain the state or placeholders of images",
                          fix=f'have the client send "{TOKENS}" and "{MASK}"')
    return _tokenizing(checkpoint, rule, _length(sources))


def read_prompts(path: str | Path, sources: Mapping[str, object]) -> Prompts | None:
    """(text, state f32 [d] in the robot's units) -> the same, for a policy that reads its state as text; None: this one
    does not. Raises SourceError, ConfigError."""
    checkpoint, family = open_checkpoint(Path(path), weights=False)
    formatted = family.prompt
    if formatted is None:
        return None
    tokens = _tokenizing(checkpoint, _rule(checkpoint, sources), _length(sources))

    def prompts(text: str, state: np.ndarray) -> dict[str, np.ndarray]:
        scaled = normalise(torch.from_numpy(state), checkpoint.normalise.get(STATE))
        return tokens(formatted(text, scaled.numpy(), checkpoint))

    return prompts


def _rule(checkpoint: Checkpoint, sources: Mapping[str, object]) -> Tokenization:
    rule = checkpoint.tokenization
    if rule is None or TOKENS not in sources or MASK not in sources:
        raise ConfigError("the policy takes no tokens", where=str(checkpoint.path),
                          why="its preprocessor has no tokenizer" if rule is None else f'the bundle has no "{TOKENS}"',
                          fix="omit --instructions, or give the checkpoint that the bundle was built from")
    return rule


def _length(sources: Mapping[str, object]) -> int | None:
    """Tokens that the bundle takes, where it says so: fewer than the checkpoint pads to if it was built for that."""
    dims = getattr(sources[TOKENS], "dims", None)
    return None if dims is None else dims[-1]


def _tokenizing(checkpoint: Checkpoint, rule: Tokenization, length: int | None) -> Instructions:
    places = [Path(rule.name), checkpoint.path / rule.name, checkpoint.path]
    folder = next((p for p in places if (p / TOKENIZER).is_file()), None)
    if folder is None:
        raise SourceError(f'the tokenizer "{rule.name}" is not on this machine', where=str(checkpoint.path),
                          why=f"no {TOKENIZER} in " + ", ".join(map(str, places)),
                          fix=f"copy the tokenizer's {TOKENIZER} and {TOKENIZER_CONFIG} into the checkpoint directory")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError("the package tokenizers is missing", where="this Python environment", why=str(error),
                          fix="pip install 'vlacompile[serve]'") from error
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    pad = _pad_token(folder)
    pad_id = tokenizer.token_to_id(pad)
    if pad_id is None:
        raise SourceError(f'the tokenizer does not have its padding token "{pad}"', where=str(folder / TOKENIZER),
                          why="no such token", fix="copy the tokenizer's files again, all from one model")
    tokenizer.enable_truncation(rule.max_length)
    taken = rule.max_length if length is None else length
    tokenizer.enable_padding(direction=rule.padding_side, pad_id=pad_id, pad_token=pad, length=taken)

    @functools.lru_cache(64)  # an instruction is repeated with every observation
    def tokens(text: str) -> dict[str, np.ndarray]:
        encoded = tokenizer.encode(text + "\n" if rule.newline and not text.endswith("\n") else text)
        if len(encoded.ids) > taken:
            raise Refusal("the instruction is too long", where=repr(text[:40]),
                          why=f"it has {len(encoded.ids)} tokens, and the policy was built for {taken}",
                          fix=f"shorten it, or build the policy with --text-length {len(encoded.ids)}")
        return {TOKENS: np.array([encoded.ids], np.int64), MASK: np.array([encoded.attention_mask], np.bool_)}

    return tokens


def _pad_token(folder: Path) -> str:
    pad = read_json(folder / TOKENIZER_CONFIG).get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if not isinstance(pad, str):
        raise SourceError("the tokenizer has no padding token", where=str(folder / TOKENIZER_CONFIG),
                          why="it names no pad_token", fix="give the tokenizer that the policy was trained with")
    return pad
