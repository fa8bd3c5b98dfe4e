"""Checkpoints without weights of the policies that others measured on boards, at the configuration that they published:
cameras, image sizes, tokens, chunk and steps. What differs from theirs is said in profiles/published.

Sizes are LeRobot's own defaults, or those that the tests recorded from the authors' code.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions

TAG, FRAME = "new_embodiment", "480x640"
EVO1_TOKENS = 576


@dataclass(frozen=True)
class Written:
    """folder: to read within `around`. settings: what the published configuration sets beside the defaults."""

    folder: Path
    settings: Mapping
    options: CheckpointOptions = NONE
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


def smolvla(folder: Path) -> Written:
    """LeRobot's defaults: 50 actions, 10 steps, 48 tokens."""
    from tests.environments.lerobot.checkpoints import sized, write

    write("smolvla", folder, real=True, weights=False)
    return Written(folder, {"cameras": 2, "image": 512, "text_tokens": 48, "actions": 50, "steps": 10},
                   around=lambda: sized("smolvla", True))


def pi05(folder: Path) -> Written:
    """Two cameras and a prompt of nine tokens, which is how long the published one is."""
    from tests.environments.lerobot.checkpoints import sized, write

    write("pi05", folder, real=True, weights=False, cameras=("base", "wrist"), tokenizer_max_length=9, chunk_size=10,
          n_action_steps=10)
    return Written(folder, {"cameras": 2, "image": 224, "text_tokens": 9, "actions": 10, "steps": 10},
                   around=lambda: sized("pi05", True))


def evo1(folder: Path) -> Written:
    """The authors' code, with a prompt of two images and 64 tokens of text, as the published one, where the authors
    take three images and pad to 1024; LeRobot's code needs the weights' content, because it counts image tokens in the
    embeddings."""
    from tests.frontends.evo1 import cases

    cases.write_vlm(folder.parent / "vlm", cases.REAL)
    folder.mkdir(parents=True)
    _write(folder / "config.json", cases.REAL_SIZES | {"action_head": "flowmatching", "vlm_name": "vlm",
                                                      "normalization_type": "bounds"})
    _write(folder / "norm_stats.json", cases.statistics())
    return Written(folder, {"cameras": 2, "image": 448, "tokens": EVO1_TOKENS, "actions": 50, "steps": 32},
                   CheckpointOptions(evo1_config="images=2,attention=flash,steps=32"), lambda: _short_prompt(folder))


@contextlib.contextmanager
def _short_prompt(folder: Path) -> Iterator[None]:
    from vlacompile.frontends.evo1 import read

    with contextlib.chdir(folder.parent), mock.patch.multiple(read, LENGTH=EVO1_TOKENS, VIEWS=2):
        yield


def xvla(folder: Path) -> Written:
    """The authors' configuration: 50 tokens of text, 30 actions, 10 steps, 32 soft prompts."""
    from tests.environments.lerobot061 import record_xvla as recorded
    from vlacompile.frontends.lerobot.importing import lerobot_importable

    folder.mkdir(parents=True)
    with lerobot_importable():
        recorded.processor_files(folder)
    images = folder / "preprocessor_config.json"
    _write(images, json.loads(images.read_text(encoding="utf-8")) | {"size": {"height": 224, "width": 224}})
    _write(folder / "config.json", _recorded("xvla")["real"]["config"])
    return Written(folder, {"cameras": 3, "image": 224, "actions": 30, "steps": 10},
                   CheckpointOptions(xvla_config="domain=0,images=3"))


def groot_n16(folder: Path) -> Written:
    """Three cameras whose shorter edge is 256, of which the tower sees 252: 81 tokens each."""
    from tests.environments.lerobot061 import groot_n16 as tiny
    from tests.environments.lerobot061.record_n16 import NAME
    from vlacompile.frontends.lerobot.importing import lerobot_importable

    found = _recorded("isaac_n16")
    with lerobot_importable():
        tiny.eagle(folder.parent / NAME)
    own = {"image_token_index": tiny.SPECIAL.index("<IMG_CONTEXT>")}  # of the tokenizer that stands in
    _write(folder.parent / NAME / "config.json", found["real"]["eagle"] | own)
    folder.mkdir(parents=True)
    tiny.robot_files(folder, TAG)
    _robot(folder, found, [0], {"max_state_dim": 128, "max_action_dim": 128, "max_action_horizon": 50})
    return Written(folder, {"cameras": 3, "image": 252, "actions": 50, "steps": 4},
                   CheckpointOptions(frame=FRAME, letterbox="yes"), lambda: contextlib.chdir(folder.parent))


def groot_n17(folder: Path) -> Written:
    """Three cameras of 256, each with an earlier frame, whose tokens are kept: the one before, not 30 before, since
    over a gap of observations the compiler keeps the raw frame and encodes it again."""
    from tests.environments.lerobot061 import groot_n17 as tiny
    from tests.environments.lerobot061.record_n17 import COSMOS, NAME
    from vlacompile.frontends.lerobot.importing import lerobot_importable

    found = _recorded("isaac_n17")
    found["real"]["config"]["model_name"] = NAME  # of the real name LeRobot has token ids of its own
    with lerobot_importable():
        tiny.qwen(folder.parent / NAME)
    sizes = folder.parent / NAME / "config.json"
    config = json.loads(sizes.read_text(encoding="utf-8"))
    for part in ("text_config", "vision_config"):
        config[part].update(COSMOS[part])
    _write(sizes, config)
    folder.mkdir(parents=True)
    tiny.robot_files(folder, TAG)
    _robot(folder, found, [-1, 0], {"model_name": NAME})
    return Written(folder, {"cameras": 3, "image": 256, "frames": 2, "actions": 40, "steps": 4},
                   CheckpointOptions(frame=FRAME), lambda: contextlib.chdir(folder.parent))


def _robot(folder: Path, found: dict, moments: list[int], settings: dict) -> None:
    """The files of a robot with three cameras, as NVIDIA's code saved them for two."""
    case = found["cases"]["opencv"]
    given = case["processor_config.json"]["processor_kwargs"]
    given["modality_configs"][TAG]["video"] |= {"modality_keys": ["left", "right", "wrist"], "delta_indices": moments}
    given |= {"shortest_image_edge": 256, **settings}
    _write(folder / "config.json", found["real"]["config"])
    for name in ("processor_config.json", "embodiment_id.json"):
        _write(folder / name, case[name])


def _recorded(name: str) -> dict:
    path = Path(__file__).parents[1] / "tests" / "environments" / "lerobot061" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


# {environment; "": none is needed: {kind: maker}}
MAKERS = {"lerobot": {"smolvla": smolvla, "pi05": pi05},
          "lerobot061": {"xvla": xvla, "groot_n16": groot_n16, "groot_n17": groot_n17}, "": {"evo1": evo1}}


@contextlib.contextmanager
def written(kind: str, folder: Path) -> Iterator[Written]:
    """The checkpoint, as long as it can be read. Raises KeyError for a kind that is not there."""
    made = next(kinds for kinds in MAKERS.values() if kind in kinds)[kind](folder)
    with made.around():
        yield made
