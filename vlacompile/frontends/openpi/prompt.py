"""What openpi makes of an instruction before it is encoded (src/openpi/models/tokenizer.py)."""

from __future__ import annotations

import json

import numpy as np

from vlart.errors import SourceError

BINS = 256
BLANKS = ("_", "\n")  # what an instruction has blanks for


def cleaned(instruction: str) -> str:
    return instruction.strip().replace("_", " ").replace("\n", " ")


def with_state(instruction: str, state: np.ndarray, ending: str = "Action: ") -> str:
    """pi0.5's prompt; without an ending, pi0-FAST's in LeRobot. state [d]: normalised."""
    bins = np.digitize(state, np.linspace(-1, 1, BINS + 1)[:-1]) - 1
    return f"Task: {cleaned(instruction)}, State: {' '.join(map(str, bins))};\n{ending}"


def instruction_tokenizer(content: str, where: str) -> str:
    """The tokenizer.json that encodes an instruction as openpi does: cleaned, after the token of the beginning, and
    before that of a line break. Blanks around it stay: the runtime's tokenizer has no step that strips. content:
    PaliGemma's tokenizer.json. Raises SourceError."""
    document = json.loads(content)
    vocabulary = document["model"]["vocab"] | {t["content"]: t["id"] for t in document.get("added_tokens", ())}
    missing = [t for t in ("<bos>", "\n") if t not in vocabulary]
    if missing:
        raise SourceError(f"the tokenizer has no token {missing[0]!r}", where=where,
                          why="openpi's policies were trained with PaliGemma's",
                          fix="give the tokenizer.json of google/paligemma-3b-pt-224")
    first = [{"type": "Replace", "pattern": {"String": old}, "content": " "} for old in BLANKS]
    # a token with one of these is in no cleaned text; looked for in the changed text, it would be found as a blank
    document["added_tokens"] = [t for t in document.get("added_tokens", ()) if not t.get("normalized", True)
                                or not any(c in t["content"] for c in BLANKS)]
    own = document.get("normalizer")
    document["normalizer"] = {"type": "Sequence", "normalizers": [*first, *([own] if own else [])]}
    document["post_processor"] = template("<bos>", "\n", vocabulary)
    return json.dumps(document)


def plain_tokenizer(content: str) -> str:
    """The tokenizer.json that encodes a whole prompt, after the token of the beginning."""
    document = json.loads(content)
    vocabulary = document["model"]["vocab"] | {t["content"]: t["id"] for t in document.get("added_tokens", ())}
    document["post_processor"] = template("<bos>", "", vocabulary)
    return json.dumps(document)


def template(before: str, after: str, vocabulary: dict[str, int]) -> dict:
    """A post-processor of tokenizer.json with these tokens around a text."""
    around = [t for t in (before, after) if t]
    pieces: list[dict] = [{"SpecialToken": {"id": t, "type_id": 0}} for t in around]
    pieces.insert(1 if before else 0, {"Sequence": {"id": "A", "type_id": 0}})
    special = {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in around}
    return {"type": "TemplateProcessing", "single": pieces, "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special}
