from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.frontends.openvla.cases import CASES, SEEDS, WIDTH, observation, platform_of, statistics
from tests.frontends.openvla.checkpoints import RECORDED, options_of, write
from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.plans import every_stage, planned
from tests.zoo.precision import check_precision
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openvla.model import LlamaSizes
from vlacompile.frontends.openvla.read import load, open_checkpoint
from vlacompile.frontends.vision_transformer import VisionSizes
from vlacompile.pipeline import plan
from vlacompile.zoo.systems.openvla import Sizes
from vlacompile.zoo.systems.openvla_oft import ROBOTS, OpenVlaOft

TEXT, LIBERO = {"tokens", "mask"}, {"image.primary", "image.wrist"}
ALOHA = LIBERO | {"image.wrist_2"}
PADDED, EMPTY = 64, 29871
RECORDINGS = {"oft-regression": "libero", "oft-film": "plus"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oft")
    return build("openvla-oft", folder, recipe=every_stage(folder))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_one_pass_and_no_loop(built):
    table = built.table()
    assert {n: table[n] for n in ("vision.primary", "vision.wrist", "state")} == {
        "vision.primary": ({"image.primary"}, 1), "vision.wrist": ({"image.wrist"}, 1), "state": ({"state"}, 1)}
    assert table["fusion.2"] == (LIBERO | TEXT | {"state"}, 1)
    assert all(count == 1 for _, count in table.values())


def test_film_and_the_first_layers_text_leave_at_task_rate(tmp_path):
    film = planned("openvla-oft-plus", tmp_path)
    stages = {s.stage: s for s in film.stages}
    assert set(stages["language"].sources) == TEXT
    # embedding; two vectors in two blocks of two vision transformers; norm, keys, queries and values of the first layer
    assert stages["language"].parameters == 400 * 32 + 2 * 2 * 2 * (32 * 32 + 32) + 32 + 3 * 32 * 32
    for i, camera in enumerate(sorted(ALOHA), 1):
        assert set(stages[camera.replace("image", "vision")].sources) == {camera}
        assert set(stages[f"fusion.{i}"].sources) == {camera} | TEXT
    # placeholders are zeros: their queries, keys and values of the first layer are constants, one more for the end
    assert sum(f.type == "f32[1,351,32]" for f in film.folded) == 3


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


@pytest.mark.full
def test_a_plan_at_real_size_has_the_film_parameters_at_task_rate():
    found = plan("zoo:openvla-oft-plus", weights=False)
    language = next(s for s in found.stages if s.stage == "language")
    film = 23 * 2 * 4097 * 1024 + 26 * 2 * 4097 * 1152
    assert language.parameters == film + 32064 * 4096 + 4096 + 3 * 4096**2
    assert round(found.parameters["in_stages"] / 1e6) == 8091


def loaded(case: str, folder) -> OpenVlaOft:
    """The module with the weights of a checkpoint, by their names, and its statistics."""
    checkpoint = open_checkpoint(write(case, folder / case), options=CheckpointOptions(**options_of(case)))
    read, parts = load(checkpoint, True)
    towers = (VisionSizes(48, 2, 16, 192, 14, 224, 5, True), VisionSizes(48, 2, 16, 179, 14, 224))
    model = OpenVlaOft(Sizes(towers, LlamaSizes(WIDTH, 2, 4, 4, 128, 32064, 1e-6, 10000.0)),
                       ROBOTS[RECORDINGS[case]]).eval()
    weights = read.state_dict() | {f"{p}.{n}": t for p, part in parts.items() for n, t in part.state_dict().items()}
    lacks = model.load_state_dict(weights, strict=False)
    assert not lacks.unexpected_keys and set(lacks.missing_keys) == {n for n, _ in model.named_buffers()}
    known = statistics(case)[platform_of(case)["keys"][-1]]
    low, high = ("q01", "q99") if platform_of(case)["norms"] == "q99" else ("min", "max")
    for bounds, row in ((model.action_bounds, known["action"]), (model.state_bounds, known["proprio"])):
        bounds.low.copy_(torch.tensor(row[low]))
        bounds.high.copy_(torch.tensor(row[high]))
    model.action_bounds.mask.copy_(torch.tensor(known["action"]["mask"]))
    return model


@torch.no_grad()
@pytest.mark.parametrize("case", RECORDINGS)
def test_the_module_answers_as_the_authors_code(case, tmp_path):
    model, recorded, found = loaded(case, tmp_path), np.array(RECORDED[case]["actions"]), []
    for seed in SEEDS:
        seen, ids = observation(case, seed), [*RECORDED[case]["ids"][seed], EMPTY]
        inputs = {c: torch.from_numpy(f)[None] for c, f in zip(model.cameras, seen["frames"], strict=True)}
        inputs |= {"tokens": torch.tensor([ids + [0] * (PADDED - len(ids))]),
                   "mask": torch.arange(PADDED)[None] < len(ids), "state": torch.from_numpy(seen["state"])[None]}
        found.append(model(**inputs)["action"][0].numpy())
    shares = np.abs(np.stack(found)[:, None] - recorded[None]) / recorded.std((0, 1))
    assert len(found) == len(RECORDED[case]["ids"]) and CASES[case]["head"] == "regression"
    assert shares.max((2, 3)).diagonal().max() < FP32 and shares.max((2, 3))[0, 1] > 100 * FP32
