"""Prompts at their real length: a policy that pads its text to the checkpoint's maximum, compiled for fewer tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from vlacompile.policy.policy import Policy
from vlacompile.policy.text import Fit
from vlart.errors import ConfigError, SourceError
from vlart.verify.metrics import examine
from vlart.verify.tolerances import tolerance

WHERE = "recipe, text.length"
_DRAWS = 2  # texts on which the shorter policy is compared with the given one


@dataclass(frozen=True)
class PaddedText:
    """ids i64[1,L] and their padding mask bool[1,L], padded on `side`. fit: None: the host writes them."""

    ids: str
    mask: str
    length: int
    side: str
    fit: Fit | None

    def cut(self, tensor: torch.Tensor, length: int) -> torch.Tensor:
        return tensor[:, -length:] if self.side == "left" else tensor[:, :length]


def with_text_length(policy: Policy, length: int, run: bool = True) -> Policy:
    """The policy with `length` tokens of text in the place of all that it pads to: a longer text is refused, not cut.
    run: False compares nothing, for a policy without weights.

    Exact where padding that the mask hides is not read, which is tried on random texts. Raises ConfigError if the
    policy has no padded text, or one text in its calibration set is longer, SourceError if it reads its padding or
    runs at one length alone."""
    found = padded_text(policy)
    if not 0 < length <= found.length:
        raise ConfigError(f"text.length = {length} is out of range", where=WHERE,
                          why=f'"{found.ids}" has {found.length} tokens', fix=f"choose 1 to {found.length}")
    if length == found.length:
        return policy
    for taken in policy.calibration:
        used = int(taken[found.mask].sum())
        if used > length:
            raise ConfigError(f"text.length = {length} is less than a text of the calibration set", where=WHERE,
                              why=f"it has {used} tokens", fix=f"choose at least {used}")
    texts = dict(policy.texts)
    if found.fit is not None:
        texts[found.ids] = replace(texts[found.ids], fit=replace(found.fit, truncate=None))
    shorter = replace(policy, texts=texts, example_inputs=_example(policy, found, length),
                      calibration=tuple(_cut(c, found, length) for c in policy.calibration),
                      origin=dict(policy.origin) | {"text length": f"{length} of {found.length} tokens"})
    if run:
        require_equal(policy, shorter.infer, found, length)
    return shorter


def padded_text(policy: Policy) -> PaddedText:
    """The one text of a policy. Raises ConfigError."""
    given = {n: t for n, t in policy.example_inputs.items() if t.dim() == 2 and t.shape[0] == 1}
    declared = [(n, t.mask) for n, t in policy.texts.items() if t.mask is not None]
    masks = [n for n, t in given.items() if t.dtype == torch.bool]
    pairs = declared or [(i, m) for m in masks for i, t in given.items()
                         if not t.is_floating_point() and t.dtype != torch.bool and t.shape == given[m].shape]
    if len(pairs) != 1:
        raise ConfigError("text.length applies to one text with a padding mask", where=WHERE,
                          why=f'policy "{policy.name}" has {len(pairs)} pairs of token ids i64[1,L] and bool[1,L]',
                          fix="leave the length out")
    ids, mask = pairs[0]
    text = policy.texts.get(ids)
    fit = None if text is None else text.fit
    if text is not None and fit is None:
        raise ConfigError("text.length does not apply to this tokenizer", where=f'{WHERE}, "{ids}"',
                          why="its padding is in its tokenizer.json, not in the policy", fix="leave the length out")
    first = given[mask][0]
    left = bool(first[-1]) and not bool(first[0]) if fit is None else fit.pad_side == "left"
    return PaddedText(ids, mask, int(first.numel()), "left" if left else "right", fit)


def _cut(inputs: Mapping[str, torch.Tensor], tokens: PaddedText, length: int) -> dict[str, torch.Tensor]:
    return {n: tokens.cut(t, length).contiguous() if n in (tokens.ids, tokens.mask) else t for n, t in inputs.items()}


def _example(policy: Policy, tokens: PaddedText, length: int) -> dict[str, torch.Tensor]:
    return _cut(policy.example_inputs, tokens, length)


def require_equal(policy: Policy, shorter: Callable[..., Mapping[str, torch.Tensor]], tokens: PaddedText,
                  length: int) -> None:
    """On random texts of up to `length` tokens: what the padding holds is not read, and `shorter`, which is given
    `length` tokens, answers as the policy does. Raises SourceError."""
    draw = torch.Generator().manual_seed(0)
    for k in range(_DRAWS):
        used = max(1, length - k * (length // 2))
        mask = torch.arange(tokens.length)[None] < used
        mask = mask.flip(1) if tokens.side == "left" else mask
        ids = policy.example_inputs[tokens.ids]
        order = torch.randint(0, tokens.length, (1, tokens.length), generator=draw)
        inputs = dict(policy.example_inputs) | {tokens.mask: mask, tokens.ids: ids.gather(1, order)}
        want = _answer(policy.infer, inputs, policy.returned)
        other = inputs | {tokens.ids: torch.where(mask, inputs[tokens.ids], ids.flatten()[0])}
        for name, value in _answer(policy.infer, other, policy.returned).items():
            found = examine(value, want[name], tolerance("f32", "chunk").limit(want[name]))
            if not found.passed:
                raise SourceError("the policy reads the padding of its text", where=f'{WHERE}, output "{name}"',
                                  why=f"with other numbers in it, the output changes: {found.text()}",
                                  fix="leave the length out")
        try:
            got = _answer(shorter, _cut(inputs, tokens, length), policy.returned)
        except Exception as error:  # whatever the policy's code raises at another length
            raise SourceError(f"the policy does not run with {length} tokens of text", where=WHERE,
                              why=f"{type(error).__name__}: {error}", fix="leave the length out") from error
        for name, value in want.items():
            kept = examine(got[name], value, tolerance("bf16", "chunk").limit(value)) \
                if got[name].shape == value.shape else None
            if kept is None or not kept.passed:
                raise SourceError(f"the policy reads the padding of its text, so that {length} tokens are another "
                                  "policy", where=f'{WHERE}, output "{name}"',
                                  why="its shape follows the length" if kept is None else kept.text(),
                                  fix="leave the length out")


def _answer(infer: Callable[..., Mapping[str, torch.Tensor]], inputs: Mapping[str, torch.Tensor],
            names: tuple[str, ...]) -> dict:
    with torch.no_grad():
        found = infer(**{n: t.clone() for n, t in inputs.items()})
    return {n: found[n].detach().float().numpy() for n in names}
