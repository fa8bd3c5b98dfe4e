"""The policy of type "vlab": LeRobot's `select_action`, `predict_action_chunk` and `reset` over a session of libvlart.

LeRobot gives images as floats [B,C,H,W] in [0, 1] and the task as text; a bundle takes uint8 [1,H,W,C] and tokens, and
normalises them itself. One robot at a time: B is 1. LeRobot predicts chunks in a thread of its own for real-time
chunking, while the control loop may begin an episode: a lock keeps the session to one of them.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy

from lerobot_policy_vlacompile.agreement import check_agreement
from lerobot_policy_vlacompile.configuration_vlab import VlabConfig, not_trained
from lerobot_policy_vlacompile.realtime import Guidance, why_not
from vlart.bundle.directory import one_backbone, read_bundle
from vlart.bundle.plan.action import Ensemble
from vlart.bundle.signature import trust
from vlart.errors import SourceError
from vlart.runtime.session import Session
from vlart.serve.observations import Input, fit, inputs_of
from vlart.serve.tokenized_texts import own_instructions

NOISE = "noise"  # LeRobot's argument, and the source of that name
STATE = "observation.state"
Tokens = dict[str, np.ndarray]


class VlabPolicy(PreTrainedPolicy):
    config_class = VlabConfig
    name = "vlab"

    def __init__(self, config: VlabConfig, **_kwargs: Any):
        """_kwargs: dataset statistics and the like, which LeRobot's factory passes to every policy: a bundle has its
        own. Raises the errors of opening a bundle."""
        super().__init__(config)
        found = trust(config.bundle, config.signers or None, keep_engines=config.keep_engines,
                      native_code=config.native_code)
        self.session = Session(config.bundle, threads=config.threads, native_code=found.native_code)
        self.bundle = one_backbone(read_bundle(config.bundle), config.backbone or None)
        self.plan, self.inputs = self.bundle.plan, inputs_of(self.bundle.plan)
        if self.plan.backbones:
            self.session.select(self.plan.backbones[0].name)
        self.tokens = _tokens(config.checkpoint, self.inputs, own_instructions(self.bundle))
        self.guidance = None if why_not(self.bundle) else Guidance(self.bundle)
        self._agreed, self._lock = False, threading.RLock()
        self._draw = np.random.default_rng(config.seed)
        self.eval()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path | None, *, config: VlabConfig | None = None,
                        **kwargs: Any):
        """A directory with a config.json of type "vlab", or a bundle itself; with a `config`, that."""
        if config is None:
            path = Path(str(pretrained_name_or_path))
            config = (VlabConfig(bundle=str(path)) if (path / "plan.bin").is_file() else
                      PreTrainedConfig.from_pretrained(path, **kwargs))
        return cls(config)

    def reset(self) -> None:
        """The beginning of an episode: nothing of the last one is executed, averaged, continued or looked back on."""
        with self._lock:
            self.session.reset()
            if self.guidance is not None:
                self.guidance.forget()

    def supports_rtc(self) -> bool:
        """Whether the bundle was built for real-time chunking. LeRobot refuses the policy otherwise; why is logged."""
        why = why_not(self.bundle)
        if why is not None:
            logging.getLogger(__name__).error("%s", why)
        return why is None

    def init_rtc_processor(self) -> None:
        """LeRobot calls it when it has set `config.rtc_config`. Raises ConfigError if the bundle does not have what
        that asks for."""
        config = getattr(self.config, "rtc_config", None)
        if config is None or not config.enabled:
            return
        if self.guidance is None:
            raise why_not(self.bundle)
        self.guidance.configure(config)

    def select_action(self, batch: dict[str, Any], noise: torch.Tensor | None = None, **_kwargs: Any) -> torch.Tensor:
        """The next action [1,action_dim]. A new chunk is predicted when the queue is empty; with temporal ensembling,
        or if the policy reads past observations, every observation is processed. noise: what to begin with; None: it
        is drawn."""
        with self._lock:
            observation = self._observation(batch, noise)
            consume, queue = self.plan.action.consume, self.session.queue()
            if queue.remaining == 0 or queue.due or queue.chunks == 0 or isinstance(consume, Ensemble):
                self._write(observation)
                self.session.step()
            elif self.plan.histories:
                self._write(observation)
                self.session.observe()
            return torch.from_numpy(self.session.pop())[None].to(self.config.device)

    def predict_action_chunk(self, batch: dict[str, Any], noise: torch.Tensor | None = None,
                             inference_delay: int | None = None, prev_chunk_left_over: torch.Tensor | None = None,
                             execution_horizon: int | None = None, **_kwargs: Any) -> torch.Tensor:
        """A chunk [1,H,action_dim] for this observation; it also replaces the queue of `select_action`.

        prev_chunk_left_over: what is left of the chunk that is being executed, as this function returned it; the new
        chunk continues it. inference_delay: steps of it that will be executed meanwhile. execution_horizon: steps that
        are guided. Raises ConfigError if the bundle was not built for that."""
        if self.guidance is None and (prev_chunk_left_over is not None or inference_delay):
            raise why_not(self.bundle)
        with self._lock:
            self._write(self._observation(batch, noise))
            if self.guidance is not None:
                for name, array in self.guidance.sources(prev_chunk_left_over, inference_delay,
                                                         execution_horizon).items():
                    self.session.write(name, array)
            self.session.step()
            chunk = self._chunk()
            if self.guidance is not None:
                self.guidance.returned(chunk, self.session.read(self.guidance.chunk))
            return torch.from_numpy(chunk)[None].to(self.config.device)

    def _chunk(self) -> np.ndarray:
        """The actions [H,action_dim] of the last step."""
        action = self.plan.action
        if action.decode or action.rate_limit is not None:
            return self.session.pop_rows(action.execute_steps)
        chunk = self.session.read(self.session.action_output)
        return chunk.reshape(action.chunk_steps, action.action_dim)

    def _observation(self, batch: dict[str, Any], noise: torch.Tensor | None) -> dict[str, np.ndarray]:
        """{source: array} of all inputs except noise that was not given. Raises Refusal, SourceError."""
        names = self.config.rename_map
        if not self._agreed:
            check_agreement(self.inputs, batch, names, self.config.bundle)
            self._agreed = True
        batch = {names.get(n, n): v for n, v in batch.items()} | ({} if noise is None else {NOISE: noise})
        found = {n: fit(wanted, n, _content(wanted, batch[n])) for n, wanted in self.inputs.items() if n in batch}
        text = batch.get("task")
        text = text[0] if isinstance(text, (list, tuple)) and len(text) == 1 else text
        if self.tokens is not None and isinstance(text, str):
            found = self.tokens(text, batch) | found
        missing = [n for n, i in self.inputs.items() if n not in found and i.update != "step"]
        if missing:
            spoken = self.inputs[missing[0]].update == "task"
            raise SourceError(f'the observation has no "{missing[0]}"', where=self.config.bundle,
                              why=f"it has {', '.join(sorted(batch))}",
                              fix="give --task, and --policy.checkpoint where the bundle has no tokenizer of its own"
                              if spoken else "have the robot give it: `vlacompile inspect` says what it is")
        return found

    def _write(self, observation: dict[str, np.ndarray]) -> None:
        """As one set: what is refused changes nothing."""
        for name, wanted in self.inputs.items():
            if name not in observation:
                draw = self._draw.standard_normal if self.config.noise == "normal" else self._draw.random
                observation = {**observation, name: draw(wanted.dims).astype(np.float32)}
        self.session.write_all(observation)

    def get_optim_params(self) -> dict:
        raise not_trained(self.config.bundle)

    def forward(self, batch: dict[str, torch.Tensor]):
        raise not_trained(self.config.bundle)

    def _save_pretrained(self, save_directory: Path, **_kwargs: Any) -> None:
        """Only config.json, which names the bundle."""
        where = str(Path(self.config.bundle).resolve())
        dataclasses.replace(self.config, bundle=where)._save_pretrained(save_directory)


def _tokens(checkpoint: str, inputs: dict[str, Input], own: Callable[[str], Tokens] | None):
    """(text, observation) -> tokens, by the checkpoint's tokenizer, or without a checkpoint by the bundle's own; None:
    there is none. The reader of checkpoints is a part of the compiler, which is imported here alone."""
    if not checkpoint:
        return None if own is None else lambda text, batch: own(text)
    from vlacompile.frontends.lerobot.instructions import read_instructions, read_prompts

    prompts = read_prompts(checkpoint, inputs)
    if prompts is None:
        instructions = read_instructions(checkpoint, inputs)
        return lambda text, batch: instructions(text)

    def with_state(text: str, batch: dict[str, Any]) -> Tokens:
        if STATE not in batch:
            raise SourceError(f'the observation has no "{STATE}"', where=checkpoint,
                              why="the policy reads it as a part of its prompt", fix="have the robot give its joints")
        return prompts(text, np.asarray(batch[STATE].detach().cpu(), np.float32).reshape(-1))

    return with_state


def _content(wanted: Input, value: Any) -> Any:
    """LeRobot's images are bytes / 255; the conversion back is exact."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if wanted.is_image() and value.is_floating_point():
            if value.ndim == 4 and value.shape[1] == wanted.dims[3]:
                value = value.permute(0, 2, 3, 1)
            elif value.ndim == 3 and value.shape[0] == wanted.dims[3]:
                value = value.permute(1, 2, 0)
            value = (value * 255).round().clamp(0, 255).to(torch.uint8)
        value = value.numpy()
    return value
