"""Each system with a published checkpoint takes its names and shapes at the real size, as the authors' code lists them,
and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.environments.lerobot.record_n15 import RECORDED as OF_N1_5
from tests.frontends.openpi.checkpoints import RECORDED as OF_OPENPI
from tests.frontends.openvla.checkpoints import RECORDED as OF_OPENVLA
from tests.samples.recorded_weights import unfolded
from tests.samples.shapes import unpacked
from tests.zoo.checkpoints.recorded import read
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.openvla.components import Components, joined
from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.owl_vit import of_transformers
from vlacompile.zoo.systems import internvla_m1, lapa, octo, rt_1
from vlart.errors import SourceError

PUBLISHED = ("act", "gr-1", "octo-small", "octo-base", "openvla", "openvla-restricted", "openvla-oft-libero",
             "openvla-oft-plus", "tinyvla-s", "tinyvla-b", "tinyvla-h", "pi0-aloha", "pi05-base", "pi0-fast",
             "groot-n1", "groot-n1-5", "anywherevla", "lapa", "internvla-m1", "rt-1", "voxposer")


def files(name: str, shapes) -> TensorFiles:
    return TensorFiles(Path(name), {}, dict(shapes))


def of_oft(case: str) -> TensorFiles:
    """As the files of its directory: the model's, and those beside it."""
    real = OF_OPENVLA["real-size"]
    parts = {key: files(name, unfolded(real[f"{case}: {name}"]))
             for key, name in (("head", "action_head"), ("proprio", "proprio_projector"), ("vision", "vision_backbone"))
             if f"{case}: {name}" in real}
    parts["head"] = parts["head"].under(lambda n: n.removeprefix("model."))
    return joined(files("openvla", unfolded(real["openvla-7b"])), Components(**parts))


@cache
def listed(name: str) -> TensorFiles:
    """The names as the system's reader gives them."""
    system, _, variant = name.partition("-")
    if system == "octo":
        return octo.of_jax(files(name, read("octo")[variant]))
    if system == "lapa":
        return lapa.of_jax(files(name, read("lapa")[""]), lapa.LLAMA.heads)
    if name == "rt-1":
        return rt_1.of_tensorflow(files(name, read("rt_1")[""]), module(name))
    if system == "voxposer":
        return of_transformers(files(name, read(system)[""]))
    if system == "internvla":
        return internvla_m1.at_places(files(name, read("internvla_m1")[""]), 16)
    if system == "tinyvla":
        return files(name, read("tinyvla")[variant])
    if name.startswith("openvla-oft"):
        return of_oft("oft-film" if variant == "oft-plus" else "oft-regression")
    if system == "openvla":
        return files(name, unfolded(OF_OPENVLA["real-size"]["openvla-7b"]))
    if system in ("pi0", "pi05") and variant != "fast":
        return files(name, unfolded(OF_OPENPI["real-size"][system]))
    if name == "groot-n1-5":
        return files(name, unpacked(json.loads(OF_N1_5.read_text(encoding="utf-8"))["real"]["weights"]))
    return files(name, read({"anywherevla": "smolvla"}.get(name, name.replace("-", "_")))[""])


@cache
def module(name: str):
    with weightless():
        return catalogue.load(f"zoo:{name}").observe


def fill(name: str, shapes: TensorFiles) -> None:
    """Into the module of shapes alone."""
    with weightless():
        catalogue.find(name).system.checkpoint.fill(module(name), shapes, weights=False)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_real_size_takes_the_published_names_and_shapes(name):
    fill(name, listed(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_takes_no_others(name):
    """The control: of a tensor that is read, another name, another shape, none; and one too many."""
    shapes = listed(name).shapes
    read_ = next(n for n in reversed(shapes) if n.endswith("weight") and len(shapes[n]) == 2 and _is_read(name, n))
    others: dict[str, Callable[[], dict]] = {
        "missing": lambda: {n: s for n, s in shapes.items() if n != read_},
        "has the shape": lambda: shapes | {read_: (shapes[read_][0] + 1, *shapes[read_][1:])},
        "1 unknown": lambda: shapes | {"another.weight": (2, 2)}}
    for said, changed in others.items():
        with pytest.raises(SourceError, match=said):
            fill(name, files(name, changed()))


def _is_read(name: str, tensor: str) -> bool:
    """Whether the policy takes it: without it, the list is not complete."""
    try:
        fill(name, files(name, {n: s for n, s in listed(name).shapes.items() if n != tensor}))
    except SourceError:
        return True
    return False


def test_every_other_system_says_that_it_takes_none():
    """And those that do have a list here."""
    with_list = {catalogue.find(name).module for name in PUBLISHED}
    assert {e.module for e in catalogue.entries() if e.system.checkpoint is not None} == with_list
