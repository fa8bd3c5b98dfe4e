"""Tokenizes the clients' instructions with the bundle's own tokenizer: text -> token ids and padding mask.

Owns the conversion of "prompt" and "task" if the bundle has a tokenizer. Must not know protocols or sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from vlart.bundle.directory import Bundle
from vlart.errors import RuntimeFailure
from vlart.files.regular import read_below
from vlart.runtime.tokenizer import RuntimeTokenizer
from vlart.serve.refusal import Refusal
from vlart.vocabulary import NUMPY_DTYPES

KEPT = 64  # size of the cache of tokenized texts: a client repeats its task with every observation

Instructions = Callable[[str], dict[str, np.ndarray]]


def own_instructions(bundle: Bundle) -> Instructions | None:
    """text -> {token source: ids [1,L], mask source: bool [1,L]}, by libvlart's tokenizer and the bundle's table; the
    function raises Refusal for a text that does not fit. None: the bundle has no tokenizer, or several texts."""
    plan = bundle.plan
    if len(plan.texts) != 1 or plan.texts[0].tokenizer is None:
        return None
    text = plan.texts[0]
    file = plan.files[text.tokenizer]
    table = read_below(bundle.path, file.path, file.bytes)
    tokenizer, tokens = RuntimeTokenizer(table, text.max_bytes), plan.values[text.tokens]
    dtype, length = NUMPY_DTYPES[tokens.type.dtype], tokens.type.dims[-1]

    @lru_cache(KEPT)
    def read(instruction: str) -> dict[str, np.ndarray]:
        try:
            ids, mask = tokenizer.fill(instruction, length)
        except RuntimeFailure as failure:
            raise Refusal("the instruction cannot be tokenized", where=f'source "{tokens.name}"', why=failure.why,
                          fix=failure.fix) from failure
        found = {tokens.name: ids[None].astype(dtype)}
        return found if text.mask is None else {**found, plan.values[text.mask].name: mask[None]}

    return lambda instruction: dict(read(instruction))
