"""Real-time chunking with LeRobot's queue of actions: what guides the next chunk of a bundle.

LeRobot keeps the chunk that is being executed and hands what is left of it to the policy, as the policy returned it:
here actions in robot units. The bundle is guided by the same chunk before un-normalisation, which is kept here; what is
left is found in it again. LeRobot computes the weights of the steps (its RTCProcessor), by its own options.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch

from vlart.bundle.directory import Bundle
from vlart.bundle.plan.action import Realtime
from vlart.errors import ConfigError, SourceError

MAX_GUIDANCE = 10.0  # of a recipe that does not say it
KEPT = 2  # chunks: after an error LeRobot goes on with the one before


class Guidance:
    """bundle: built with consume = "realtime" (see `why_not`)."""

    def __init__(self, bundle: Bundle):
        action = bundle.plan.action
        assert action is not None and isinstance(action.consume, Realtime) and action.consume.chunk is not None
        values = bundle.plan.values
        self.bundle, self.delay = bundle, action.consume.delay
        self.previous, self.weights, self.chunk = (values[v].name for v in (
            action.consume.previous, action.consume.weights, action.consume.chunk))
        self.dims = values[action.consume.previous].type.dims  # [1,H,N]
        self.most = bundle.manifest["provenance"]["recipe"]["action"]["max_guidance"]
        self._processor: Any = None
        self._returned: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=KEPT)  # (actions, sample) [H,...]

    def configure(self, config: Any) -> None:
        """config: LeRobot's RTCConfig. Raises ConfigError if the bundle was compiled with another bound."""
        from lerobot.policies.rtc.modeling_rtc import RTCProcessor

        most = MAX_GUIDANCE if self.most is None else self.most
        if config.max_guidance_weight != most:
            raise ConfigError("the bundle is guided with another bound", where=str(self.bundle.path),
                              why=f"compiled with action.max_guidance = {most:g}, LeRobot asks for "
                              f"{config.max_guidance_weight:g}",
                              fix=f"--inference.rtc.max_guidance_weight={most:g}, or build it again with that bound")
        self._processor = RTCProcessor(config)

    def sources(self, left: Any, delay: int | None, horizon: int | None) -> dict[str, np.ndarray]:
        """{source: array}. left: what is left of the last chunk, [T,action_dim] or [1,T,action_dim]; None: nothing, the
        next chunk is not guided. delay: steps that will have been executed when the chunk is there; None: the recipe's.
        horizon: steps that are guided; None: LeRobot's option. Raises SourceError."""
        previous, steps = np.zeros(self.dims, np.float32), self.dims[1]
        weights = np.zeros((1, steps, 1), np.float32)
        rest = None if left is None else self._rest(left)
        if rest is not None:
            if self._processor is None:
                from lerobot.policies.rtc.configuration_rtc import RTCConfig

                self.configure(RTCConfig())
            wanted = self._processor.rtc_config.execution_horizon if horizon is None else horizon
            # LeRobot fills up a short rest with zeros, which are no actions: nothing is drawn to them here
            end = min(wanted, len(rest), np.shape(left)[-2])
            previous[0, :len(rest)] = rest
            prefix = self._processor.get_prefix_weights(self.delay if delay is None else delay, end, steps)
            weights[0, :, 0] = prefix.numpy()
        return {self.previous: previous, self.weights: weights}

    def returned(self, actions: np.ndarray, sample: np.ndarray) -> None:
        """The chunk that the policy returns: actions [H,action_dim], and the value `chunk` [1,H,N] that they are
        computed from."""
        self._returned.append((actions.copy(), sample[0].copy()))

    def forget(self) -> None:
        """The beginning of an episode."""
        self._returned.clear()

    def _rest(self, left: Any) -> np.ndarray:
        """The part of a returned chunk's sample [T,N] whose actions `left` begins with."""
        rows = left.detach().float().cpu().numpy() if isinstance(left, torch.Tensor) else np.asarray(left, np.float32)
        rows = rows[0] if rows.ndim == 3 else rows
        for actions, sample in reversed(self._returned):
            for begin in range(len(actions)):
                count = min(len(rows), len(actions) - begin)
                if np.array_equal(rows[:count], actions[begin:begin + count]) and not rows[count:].any():
                    return sample[begin:begin + count]
        if not rows.any():  # nothing is left, filled up with zeros
            return np.zeros((0, self.dims[2]), np.float32)
        raise SourceError("what is left of the previous chunk is not of this policy", where=str(self.bundle.path),
                          why=f"none of its last {KEPT} chunks continues with these {len(rows)} actions",
                          fix="hand on what predict_action_chunk returned, unchanged, or None for the first chunk")


def why_not(bundle: Bundle) -> ConfigError | None:
    """Why a bundle has no real-time chunking."""
    consume = bundle.plan.action.consume if bundle.plan.action else None
    if isinstance(consume, Realtime) and consume.previous is not None:
        return None
    kind = "not guided: [action] max_guidance = 0" if isinstance(consume, Realtime) else "a queue of whole chunks"
    return ConfigError("the bundle was not built for real-time chunking", where=str(bundle.path),
                       why=f"its actions are {kind}",
                       fix='build it with a recipe with [action] consume = "realtime" and delay, or run it with '
                           "--inference.type=sync")
