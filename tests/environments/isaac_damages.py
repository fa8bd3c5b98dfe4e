"""Damages to what N1.6 and N1.7 save alike, in the current folder, and what is said of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import torch

from tests.environments.isaac import CHECKPOINT, edit, write_weights

TAG = "new_embodiment"
PROCESSOR, STATISTICS, NUMBERS = "processor_config.json", "statistics.json", "embodiment_id.json"
BIAS = "action_head.action_decoder.layer2.b"


def of_robot(content: dict) -> dict:
    return content["processor_kwargs"]["modality_configs"][TAG]


def of_processor(**settings) -> None:
    edit(PROCESSOR, lambda c: c["processor_kwargs"].update(settings))


def of_video(**settings) -> None:
    edit(PROCESSOR, lambda c: of_robot(c)["video"].update(settings))


def _spoil(change: Callable[[list], list]) -> None:
    """The upper numbers of the arm's state: maximum, percentile and deviation."""
    edit(STATISTICS, lambda c: c[TAG]["state"]["arm"].update(
        {k: change(c[TAG]["state"]["arm"][k]) for k in ("max", "q99", "std")}))


def damages(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[Callable[[], object], str]]:
    """shapes: of the weights."""
    weights = CHECKPOINT / "model.safetensors"
    return {
        "no processor": (lambda: edit(PROCESSOR, None), f"{PROCESSOR} is missing"),
        "no statistics": (lambda: edit(STATISTICS, None), f"{STATISTICS} is missing"),
        "no numbers": (lambda: edit(NUMBERS, None), f"{NUMBERS} is missing"),
        "no weights": (weights.unlink, "has no weights"),
        "a part of the weights": (lambda: (weights.unlink(), (
            CHECKPOINT / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {
                BIAS: "model-00002-of-00002.safetensors"}}), encoding="utf-8")),
                                  "model-00002-of-00002.safetensors is missing"),
        "cut weights": (lambda: weights.write_bytes(b"\x10"), "cannot be read"),
        "statistics of another robot": (lambda: edit(STATISTICS, lambda c: c.update(gr1=c.pop(TAG))),
                                        f'statistics of the embodiment "{TAG}" are missing'),
        "a group without statistics": (lambda: edit(STATISTICS, lambda c: c[TAG]["state"].pop("arm")),
                                       'statistics of "arm" are missing'),
        "words for numbers": (lambda: _spoil(lambda n: [str(v) for v in n]), 'statistics of "arm" are no numbers'),
        "beyond floating point": (lambda: _spoil(lambda n: [10 ** 400] * len(n)), 'statistics of "arm" are no numbers'),
        "a spread below zero": (lambda: _spoil(lambda n: [-1e9] * len(n)), 'statistics of "arm" are damaged'),
        "relative statistics": (lambda: edit(STATISTICS, lambda c: c[TAG].pop("relative_action")),
                                'statistics of "arm" are missing'),
        "no number": (lambda: edit(NUMBERS, lambda c: c.pop(TAG)), f'"{TAG}" has no number'),
        "a number beyond the weights": (lambda: edit(NUMBERS, lambda c: c.update({TAG: 31})), "has no weights"),
        "a missing weight": (lambda: write_weights(shapes, lambda t: t.pop(BIAS)),
                             f"the weights do not fit config.json.*{BIAS}"),
        "an unknown weight": (lambda: write_weights(shapes, lambda t: t.update(mask_token=torch.zeros(1))),
                              "do not fit config.json"),
        "a weight of another shape": (lambda: write_weights(shapes, lambda t: t.update({BIAS: torch.zeros(4, 7)})),
                                      "the weights do not fit config.json"),
        "fewer layers": (lambda: edit("config.json", lambda c: c.update(select_layer=3)), "do not fit config.json"),
        "frames that are still to come": (lambda: of_video(delta_indices=[0, 1]), "do not end with the newest"),
        "frames in no order": (lambda: of_video(delta_indices=[-1, -2, 0]), "do not end with the newest"),
        "states before this one": (lambda: edit(PROCESSOR, lambda c: of_robot(c)["state"].update(
            delta_indices=[-1, 0])), "takes a history of state"),
        "no cameras": (lambda: of_video(modality_keys=[]), "no actions or no cameras"),
        "no frame sizes": (lambda: of_processor(image_target_size=None, use_albumentations=False),
                           "sizes of the policy's frames are missing"),
    }
