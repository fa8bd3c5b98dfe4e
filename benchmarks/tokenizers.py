"""Tokenizer tables: their size, and microseconds per instruction compared with the tokenizers library.

    python -m benchmarks.tokenizers
"""

from __future__ import annotations

import statistics
import time

from tokenizers import Tokenizer

from examples.libero_goal.encoders import LANGUAGE_ENCODERS
from examples.libero_goal.train import INSTRUCTIONS
from vlacompile.tokenize.read_tokenizer_json import read_tokenizer
from vlacompile.tokenize.table import tokenizer_bytes
from vlart.runtime.tokenizer import RuntimeTokenizer

ROUNDS = 200


def micros(encode, texts: list[str]) -> float:
    """Microseconds per text: the median over rounds."""
    encode(texts[0])
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        for text in texts:
            encode(text)
        times.append((time.perf_counter_ns() - began) / len(texts) / 1e3)
    return statistics.median(times)


def measure(name: str, original: Tokenizer) -> dict:
    text = original.to_str()
    began = time.perf_counter()
    table = tokenizer_bytes(read_tokenizer(text))
    taken = time.perf_counter() - began
    original.no_padding(), original.no_truncation()
    runtime = RuntimeTokenizer(table, 2048)
    texts = list(INSTRUCTIONS.values())
    assert all(runtime.encode(t) == original.encode(t).ids for t in texts)
    began = time.perf_counter_ns()
    RuntimeTokenizer(table, 2048)
    opened = (time.perf_counter_ns() - began) / 1e6
    return {"tokenizer": name, "tokenizer.json bytes": len(text.encode()), "table bytes": len(table),
            "arena bytes": len(runtime.arena), "seconds to make": round(taken, 2), "ms to open": round(opened, 2),
            "us per instruction": round(micros(runtime.encode, texts), 2),
            "us of tokenizers": round(micros(lambda t: original.encode(t).ids, texts), 2)}


if __name__ == "__main__":
    for member, encoder in LANGUAGE_ENCODERS.items():
        print(measure(f"{encoder.__name__} ({member})", encoder.tokenizer()))
