"""pi0-FAST (Pertsch et al. 2025, arXiv 2501.09747): PaliGemma that writes the actions of a chunk as FAST's tokens.

The loop over tokens and its end are in the graph; the runtime makes actions of them. The action tokenizer is read from
its files, the code of its repository is not run. Like pi0.5's, the prompt holds the state as text, which the host
writes. Where LeRobot's own code fails, because a token is in no vocabulary or the text does not begin as it should, the
runtime refuses the chunk; where it makes a chunk of zeros, so does the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import nn

from vlacompile.frontends.decoding import SlotCache, drawn_by_inversion, up_to_end
from vlacompile.frontends.fast import Fast, read_fast
from vlacompile.frontends.lerobot import openpi
from vlacompile.frontends.lerobot.checkpoint import Checkpoint
from vlacompile.frontends.lerobot.normalise import unnormalising
from vlacompile.frontends.lerobot.read import MASK, STATE, TOKENS, Batch, Family, Predict, uniform
from vlacompile.frontends.openpi.prompt import with_state
from vlacompile.policy.action_decoding import Decoder, Delta
from vlart.errors import SourceError

CHOICES = "noise.choices"  # uniform in [0, 1), one number per token, of a policy that draws its tokens
END, PREFIX = "|", "Action: "
NO_TEXT = (0xFF,)  # a symbol that is no UTF-8


@dataclass(frozen=True)
class ActionTokens:
    """Ids of the text's tokenizer. last: of FAST's token 0, from which ids count down. prefix: of the first tokens that
    a chunk must begin with, none if that is not checked. known: how many ids there are."""

    last: int
    end: int
    prefix: tuple[int, ...]
    known: int
    fast: Fast

    @property
    def refused(self) -> int:
        return len(self.fast.pieces)

    def rows(self, written: torch.Tensor) -> torch.Tensor:
        """Tokens i64 [1,n], -1 behind the end -> rows of FAST's table i64 [1,n]; behind it are one for a text that
        is refused, one for tokens that are skipped, and the end."""
        refused, skipped, end = (self.refused + i for i in range(3))
        over = ((written == self.end) | (written < 0)).cumsum(-1) > 0
        rows = self.last - written
        zeros = ((rows < 0) & ~over).any(-1, keepdim=True)
        wrong = ((written >= self.known) & ~over).any(-1, keepdim=True)
        for i, token in enumerate(self.prefix):
            wrong = wrong | (written[:, i:i + 1] != token)
        rows = torch.where(rows >= refused, skipped, rows)
        rows = torch.where(over | zeros, end, rows)
        return torch.where(wrong, refused, rows)


def action_tokens(policy) -> ActionTokens:
    """Raises SourceError if texts and actions cannot be told apart."""
    config, text = policy.config, policy._paligemma_tokenizer
    fast, last = read_fast(config.action_tokenizer_name), text.vocab_size - 1 - config.fast_skip_tokens
    around = text.encode(PREFIX, add_special_tokens=False)
    checked = [text.get_vocab().get(t) for t in ("Action", ":")] if config.validate_action_token_prefix else []
    end = text.get_vocab().get(END)
    if end is None or None in checked:
        raise SourceError("the text's tokenizer lacks tokens around actions", where=config.text_tokenizer_name,
                          why=f'"{END}" ends a chunk' + (', "Action" and ":" begin it' if checked else ""),
                          fix="give the tokenizer that the policy was trained with")
    if any(last - token < len(fast.pieces) for token in around):
        raise SourceError("tokens of actions are also tokens of texts", where=config.text_tokenizer_name,
                          why=f'its ids of "{PREFIX}" are among the {len(fast.pieces)} below '
                              f"{last + 1}, which stand for actions",
                          fix="give the tokenizers that the policy was trained with")
    if config.max_decoding_steps < len(checked):
        raise SourceError("the policy writes too few tokens", where="config.json: max_decoding_steps",
                          why=f'a chunk begins with "{PREFIX}"', fix="use the config.json that the training wrote")
    return ActionTokens(last, end, tuple(checked), len(text), fast)


def _make(policy_class: type, config) -> nn.Module:
    """LeRobot's policy without the action tokenizer, whose class is code of its repository."""
    import sys

    module = sys.modules[policy_class.__module__]
    with mock.patch.object(module, "AutoProcessor", SimpleNamespace(from_pretrained=lambda *args, **kwargs: None)):
        return policy_class(config)


def _bind(policy) -> Predict:
    from lerobot.policies.common.vla_utils import prepare_attention_masks_4d

    config, model, tokens = policy.config, policy.model, action_tokens(policy)
    both = model.paligemma_with_expert
    language, head, most = both.paligemma.model.language_model, both.paligemma.lm_head, config.max_decoding_steps

    def decoder(x, mask, positions, cache):
        return language(inputs_embeds=x, attention_mask=mask, position_ids=positions, past_key_values=cache,
                        use_cache=True).last_hidden_state

    def predict(batch: Batch) -> torch.Tensor:
        def choose(hidden: torch.Tensor, k: int) -> torch.Tensor:
            logits = head(hidden)
            if config.temperature > 0:
                return drawn_by_inversion(logits / config.temperature, batch[CHOICES][:, k, None, None])
            return logits.argmax(-1)

        begin = torch.full((1, 1), policy._paligemma_tokenizer.bos_token_id)
        text = torch.cat([batch[TOKENS], begin], 1), torch.cat([batch[MASK], torch.ones(1, 1, dtype=torch.bool)], 1)
        prefix, there, visible, *_ = model.embed_prefix_fast(*policy._preprocess_images(batch), *text)
        cache = SlotCache(most - 1)
        hidden = decoder(prefix, prepare_attention_masks_4d(visible), there.cumsum(1) - 1, cache)
        return tokens.rows(up_to_end(decoder, both.embed_language_tokens, choose, choose(hidden[:, -1:], 0), cache,
                                     there, most, tokens.end))

    return predict


def decoder_of(policy, checkpoint: Checkpoint) -> Decoder:
    tokens, size = action_tokens(policy), checkpoint.action.shape[0]
    fast = replace(tokens.fast, pieces=(*tokens.fast.pieces, NO_TEXT))
    units: list = [unnormalising(checkpoint.normalise.get("action"), size)]
    if checkpoint.relative is not None:
        offsets = tuple(i if relative else None for i, relative in enumerate(checkpoint.relative))
        units.append(Delta(checkpoint.robot_name(STATE), offsets))
    return fast.decoder((policy.config.n_action_steps, size), 0, 1, len(fast.pieces) + 1, *units)


def _noise(config) -> Batch:
    return {CHOICES: uniform(1, config.max_decoding_steps)} if config.temperature > 0 else {}


def prompt(instruction: str, state: np.ndarray, checkpoint: Checkpoint) -> str:
    """state [d]: normalised. As in lerobot/policies/pi0_fast/processor_pi0_fast.py."""
    return with_state(instruction, np.asarray(state, np.float32), ending="")


FAMILY = Family("lerobot.policies.pi0_fast.modeling_pi0_fast", "PI0FastPolicy", _bind, ready=openpi.ready, make=_make,
                weights=openpi.weights, read_as=openpi.read_as, noise=_noise, prompt=prompt, decoder=decoder_of,
                known_steps=frozenset({"pi0_fast_prepare_state_tokenizer_processor_step"}), only="lerobot061")
