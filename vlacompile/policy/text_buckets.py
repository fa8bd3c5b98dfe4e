"""Prompts at several lengths in one bundle: a policy that pads its text, compiled for each, and one of them is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from vlacompile.policy.join_backbones import MOST, join
from vlacompile.policy.policy import Policy
from vlacompile.policy.text import TextBuckets
from vlacompile.policy.text_length import WHERE, PaddedText, padded_text, require_equal, with_text_length
from vlart.errors import ConfigError, SourceError


def with_text_lengths(policy: Policy, lengths: tuple[int, ...], run: bool = True) -> Policy:
    """The policy with up to `lengths` tokens of text: of one length with_text_length(), of several one backbone each,
    `tokens_<length>`, that reads the text without the padding beyond its length. All read the same sources, those of
    the longest. Which one is run follows from the mask: the shortest that holds all tokens. A text beyond the longest
    is refused. run: False compares nothing.

    Raises ConfigError and SourceError as with_text_length, and for a policy that cannot be several."""
    if len(lengths) == 1:
        return with_text_length(policy, lengths[0], run)
    if list(lengths) != sorted(set(lengths)) or not 2 <= len(lengths) <= MOST or lengths[0] < 1:
        raise ConfigError(f"the lengths {', '.join(map(str, lengths))} cannot be in one bundle", where=WHERE,
                          why=f"they are 2 to {MOST} whole numbers from 1 on, ascending, each once",
                          fix="give such lengths, e.g. 48,96,200")
    _require_plain(policy)
    longest = _refusing(with_text_length(policy, lengths[-1], run))
    text = padded_text(longest)
    several = {f"tokens_{n}": _reading(longest, text, n, run) for n in lengths}
    joined = join(several, policy.name)
    origin = dict(longest.origin) | {"text lengths": f"{', '.join(map(str, lengths))} of "
                                                     f"{padded_text(policy).length} tokens"}
    return replace(joined, buckets=TextBuckets(text.mask, text.side, tuple(lengths)), origin=origin,
                   encoding=policy.encoding)


def _require_plain(policy: Policy) -> None:
    reason = ("it has several backbones already" if policy.backbones else
              f"{', '.join(policy.carried)} is carried from step to step, of which each length would have its own"
              if policy.carried else "it has samplers of its own" if policy.solvers else None)
    if reason is not None:
        raise SourceError(f'policy "{policy.name}" cannot have several text lengths', where=WHERE, why=reason,
                          fix="give one length")


def _refusing(policy: Policy) -> Policy:
    """With the text refused that it would cut."""
    return replace(policy, texts={n: t if t.fit is None else replace(t, fit=replace(t.fit, truncate=None))
                                  for n, t in policy.texts.items()})


def _reading(policy: Policy, text: PaddedText, length: int, run: bool) -> Policy:
    """The policy that reads `length` tokens of the same sources."""
    if length == text.length:
        return policy

    def observe(**given: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return policy.observe(**{n: text.cut(t, length) if n in (text.ids, text.mask) else t
                                 for n, t in given.items()})

    if run:
        require_equal(policy, policy.infer, text, length)
    return replace(policy, observe=observe)
