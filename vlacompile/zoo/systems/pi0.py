"""pi0: flow matching by an action expert that reads the keys and values of a PaliGemma prefix."""

from __future__ import annotations

from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.prefix_lm import OPENPI, openpi_policy
from vlacompile.zoo.system import Published, System

CONFIGURATIONS = {"aloha": "pi0_aloha", "droid": "pi0_droid", "libero": "pi0_libero"}
EXECUTED = {"aloha": 25, "droid": 8, "libero": 5}  # of openpi's clients: examples/aloha_real, droid, libero


def make(variant: str, size: str) -> Policy:
    return openpi_policy("pi0", CONFIGURATIONS[variant], size, EXECUTED[variant])


_PAPER = "arXiv 2410.24164"
SYSTEM = System(
    "pi0", 2024, 15, f"{_PAPER}, github.com/Physical-Intelligence/openpi 15a9616", make,
    says=(
        "ALOHA: 25 actions of a chunk are executed",
        "DROID: 8 actions of a chunk are executed",
        "LIBERO: 5 actions of a chunk are executed"),
    code="Apache-2.0",
    weights="Apache-2.0 and Gemma's terms", variants=tuple(CONFIGURATIONS), checkpoint=OPENPI,
    published=(
        Published("latency", 73, "ms", "three cameras, ten steps, on board, RTX 4090", _PAPER),
        Published("rate", 50, "actions/s", "of the robot", _PAPER),
        Published("parameters", 3.3, "B", "PaliGemma 3 B and the expert 300 M", _PAPER),
    ))
