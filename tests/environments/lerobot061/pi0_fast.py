"""Checkpoints of pi0-FAST, written by LeRobot's own code at a small size, with both tokenizers trained here."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from tests.environments.lerobot.checkpoints import dataset_statistics, small_gemma, trained_tokenizer
from vlacompile.frontends.lerobot.importing import lerobot_importable

TEXT_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "Action", ":"]
LOWEST, ALONE, PIECES, SKIPPED = -55, 40, 60, 8  # of the action tokenizer: integers -20 to 19, and pairs of them
CHOSEN = 3  # ids of texts that the policy may write, beside those of actions and the end
CAMERAS = {"base": (3, 80, 96), "left": (3, 64, 64)}


def text_tokenizer(folder: Path) -> str:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(TEXT_SPECIAL), pad_token="<pad>", eos_token="<eos>",
                            bos_token="<bos>", unk_token="<unk>").save_pretrained(folder)
    return str(folder)


def action_tokenizer(folder: Path) -> str:
    """The files that a training of FAST writes; its class is not among them, which LeRobot has a copy of."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    draw, bpe = torch.Generator().manual_seed(2), Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    numbers = (torch.randn(400, 12, generator=draw) * 3).round().int().clamp(-20, 19) - LOWEST
    alphabet = [chr(i - LOWEST) for i in range(-20, -20 + ALONE)]
    bpe.train_from_iterator(["".join(map(chr, row)) for row in numbers.tolist()], trainers.BpeTrainer(
        vocab_size=PIECES, initial_alphabet=alphabet, show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False).save_pretrained(folder)
    settings = {"processor_class": "UniversalActionProcessor", "scale": 10, "vocab_size": PIECES, "min_token": LOWEST,
                "action_dim": None, "time_horizon": None}
    (folder / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(folder)


@contextlib.contextmanager
def without_remote_code() -> Iterator[None]:
    """Inside, LeRobot loads an action tokenizer by its own copy of the class that its repository has, and none to
    encode recorded actions, which takes the Hub's tokenizer of texts, whatever the policy's is."""
    from lerobot.policies.molmoact2.molmoact2_hf_model.action_tokenizer import UniversalActionProcessor
    from lerobot.policies.pi0_fast import modeling_pi0_fast
    from lerobot.processor.tokenizer_processor import ActionTokenizerProcessorStep
    from transformers import PreTrainedTokenizerFast

    class Local:
        @staticmethod
        def from_pretrained(name: str, **options):
            said = json.loads((Path(name) / "processor_config.json").read_text(encoding="utf-8"))
            kept = {k: said[k] for k in ("scale", "vocab_size", "min_token")}
            return UniversalActionProcessor(PreTrainedTokenizerFast.from_pretrained(name), **kept)

    with (mock.patch.object(modeling_pi0_fast, "AutoProcessor", Local),
          mock.patch.object(ActionTokenizerProcessorStep, "__post_init__", lambda step: None)):
        yield


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Inside, LeRobot's pi0-FAST is tiny, written or read, and loads its action tokenizer."""
    with lerobot_importable(), without_remote_code(), small_gemma("pi0_fast"):
        yield


def write(folder: Path, ids: tuple[int, ...] = (), **settings) -> torch.nn.Module:
    """Saves a checkpoint with its processors; the policy that was saved. ids: further ones that it may write. Called
    inside `small`."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.pi0_fast.configuration_pi0_fast import PI0FastConfig
    from lerobot.policies.pi0_fast.modeling_pi0_fast import PI0FastPolicy

    torch.manual_seed(0)
    inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, s) for c, s in CAMERAS.items()}
    features = {"input_features": inputs | {"observation.state": PolicyFeature(FeatureType.STATE, (6,))},
                "output_features": {"action": PolicyFeature(FeatureType.ACTION, (6,))}}
    config = PI0FastConfig(**features, device="cpu", push_to_hub=False, **{
        "text_tokenizer_name": text_tokenizer(folder.parent / "text"), "image_resolution": (64, 64), "chunk_size": 4,
        "action_tokenizer_name": action_tokenizer(folder.parent / "fast"), "fast_skip_tokens": SKIPPED,
        "n_action_steps": 4, "max_decoding_steps": 16, "validate_action_token_prefix": False} | settings)
    before, after = make_pre_post_processors(config, dataset_stats=dataset_statistics(features))
    policy = PI0FastPolicy(config)
    draw = torch.Generator().manual_seed(11)
    for weight in policy.parameters():
        if weight.dim() == 1:
            weight.data += 0.2 * torch.randn(weight.shape, generator=draw)
    text = policy._paligemma_tokenizer
    last = text.vocab_size - 1 - config.fast_skip_tokens
    may = [*range(last - PIECES + 1, last + 1), *range(20, 20 + CHOSEN), text.get_vocab()["|"], *ids]
    head = policy.model.paligemma_with_expert.paligemma.lm_head
    kept = torch.zeros(len(head.weight), 1)
    kept[may] = 30.0  # their logits are far above zero, which those of all others are
    head.weight = torch.nn.Parameter(head.weight.data * kept)  # no embedding
    for part in (policy.eval(), before, after):
        part.save_pretrained(folder)
    return policy
