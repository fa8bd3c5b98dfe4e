"""pi0.5 (Physical Intelligence 2025, arXiv 2504.16054): as pi0, with the time in the action expert's norms and the
robot's state in the prompt.

The state is part of the text: it is normalised, binned to 256 values and formatted into the instruction before
tokenization. A graph cannot do that, so the state is not an input of the compiled policy: the host writes new tokens
with every observation (`read.tokens_of(checkpoint, instruction, state)`), and tokens and mask change as often as the
frames do. Therefore nothing of the prompt can be cached from one observation to the next.
"""

from __future__ import annotations

import numpy as np

from vlacompile.frontends.lerobot import openpi
from vlacompile.frontends.lerobot.read import Family

BINS = 256


def prompt(instruction: str, state: np.ndarray, config: dict) -> str:
    """state [d]: normalised. The formula is openpi's, as in lerobot/policies/pi05/processor_pi05.py (0.4.4)."""
    padded = np.zeros(max(config["max_state_dim"], len(state)), np.float32)
    padded[: len(state)] = state
    bins = np.digitize(padded, np.linspace(-1, 1, BINS + 1)[:-1]) - 1
    task = instruction.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {task}, State: {' '.join(map(str, bins))};\nAction: "


FAMILY = Family("lerobot.policies.pi05.modeling_pi05", "PI05Policy", openpi.bind, ready=openpi.ready, make=openpi.make,
                weights=openpi.weights, noise=openpi.noise, prompt=prompt,
                known_steps=frozenset({"pi05_prepare_state_tokenizer_processor_step"}))
