"""Tokenizers of every kind that can be taken over, trained here on a few sentences."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vlacompile.tokenize.corpus import INSTRUCTIONS, LANGUAGES
from vlacompile.tokenize.read_tokenizer_json import EXPRESSIONS

TEXTS = [*INSTRUCTIONS, *LANGUAGES] * 3
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def word_piece(lowercase: bool = True) -> Tokenizer:
    it = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    it.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=None if lowercase else False)
    it.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    it.train_from_iterator(TEXTS, trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    it.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return it


def byte_bpe(pre=None, normaliser=None, prefix_space: bool = False, size: int = 420,
             ignore_merges: bool = False) -> Tokenizer:
    it = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normaliser is not None:
        it.normalizer = normaliser
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=pre is None or pre == "digits")
    before = [pre_tokenizers.Digits(individual_digits=True)] if pre == "digits" else [] if pre is None else [
        pre_tokenizers.Split(Regex(next(e for e, rule in EXPRESSIONS.items() if rule == pre)), "isolated")]
    it.pre_tokenizer = pre_tokenizers.Sequence([*before, last]) if before else last
    it.decoder = decoders.ByteLevel()
    it.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>", "<|im_start|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    it = with_merges(it, [("1", "2"), ("a", "1"), ("w", "!"), ("Ġ", "Ġ")])
    it.add_tokens([AddedToken("<image>", lstrip=True, rstrip=True), AddedToken("grasp", normalized=True)])
    return it


def with_merges(original: Tokenizer, pairs: list[tuple[str, str]]) -> Tokenizer:
    """Merges across what is split, so that ids show where words end."""
    document = json.loads(original.to_str())
    model = document["model"]
    for left, right in pairs:
        if left + right not in model["vocab"]:
            model["vocab"][left + right] = max(model["vocab"].values()) + 1
            model["merges"].append([left, right])
    return Tokenizer.from_str(json.dumps(document))


def sentence_bpe(normaliser=None, pre=None, fallback: bool = True, fuse: bool = True, post=None) -> Tokenizer:
    """As converted from SentencePiece: characters are merged, spaces are marks, unknown ones are spelt in bytes."""
    it = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=fallback, fuse_unk=fuse))
    if normaliser is not None:
        it.normalizer = normaliser
    if pre is not None:
        it.pre_tokenizer = pre
    it.train_from_iterator(TEXTS[:13], trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIAL, *(BYTES if fallback else ())], show_progress=False))
    if fallback:  # byte tokens of a converted model are in its vocabulary and are not looked for in the text
        document = json.loads(it.to_str())
        document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] not in BYTES]
        it = Tokenizer.from_str(json.dumps(document))
    it.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    if post is not None:
        it.post_processor = post
    return it


def gemma_like() -> Tokenizer:
    return sentence_bpe(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                        post=processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 2)]))


def llama_like() -> Tokenizer:
    return sentence_bpe(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), fuse=True,
                        post=processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 2)]))


KINDS = {
    "wordpiece": word_piece,
    "wordpiece cased": lambda: word_piece(False),
    "gpt2": byte_bpe,
    "gpt2 with a blank before": lambda: byte_bpe(prefix_space=True),
    "digits": lambda: byte_bpe("digits"),
    "qwen2": lambda: byte_bpe("qwen2", normalizers.NFC()),
    "llama3": lambda: byte_bpe("llama3", ignore_merges=True),
    "nfkc": lambda: byte_bpe(normaliser=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    "nfd, no accents": lambda: byte_bpe(normaliser=normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents()])),
    "gemma": gemma_like,
    "llama": llama_like,
    "metaspace first": lambda: sentence_bpe(pre=pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "metaspace always, cut": lambda: sentence_bpe(pre=pre_tokenizers.Metaspace(prepend_scheme="always", split=True)),
    "unknown, fused": lambda: sentence_bpe(normalizers.Replace(" ", "▁"), fallback=False),
    "unknown, one by one": lambda: sentence_bpe(normalizers.Replace(" ", "▁"), fallback=False, fuse=False),
}
