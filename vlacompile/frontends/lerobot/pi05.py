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
from vlacompile.frontends.lerobot.checkpoint import Checkpoint
from vlacompile.frontends.lerobot.read import Family
from vlacompile.frontends.openpi.prompt import with_state


def prompt(instruction: str, state: np.ndarray, checkpoint: Checkpoint) -> str:
    """state [d]: normalised. openpi's formula, as in lerobot/policies/pi05/processor_pi05.py; before LeRobot 0.5 the
    state was padded to max_state_dim numbers first."""
    said = np.asarray(state, np.float32)
    if not checkpoint.reading.untied:
        said = np.pad(said, (0, max(0, checkpoint.config["max_state_dim"] - len(said))))
    return with_state(instruction, said)


FAMILY = Family("lerobot.policies.pi05.modeling_pi05", "PI05Policy", openpi.bind, ready=openpi.ready, make=openpi.make,
                weights=openpi.weights, read_as=openpi.read_as, noise=openpi.noise, prompt=prompt,
                known_steps=frozenset({"pi05_prepare_state_tokenizer_processor_step"}))
