"""The policy of type "vlab": LeRobot's `select_action`, `predict_action_chunk` and `reset` over a session of libvlart.

LeRobot gives images as floats [B,C,H,W] in [0, 1] and the task as text; a bundle takes uint8 [1,H,W,C] and tokens, and
normalises them itself. One robot at a time: B is 1.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy

from vlacompile.bundle.directory import one_backbone, read_bundle
from vlacompile.bundle.plan.action import Ensemble
from vlacompile.errors import ConfigError, SourceError
from vlacompile.frontends.lerobot.instructions import read_instructions
from vlacompile.frontends.lerobot.plugin.configuration_vlab import VlabConfig
from vlacompile.runtime.session import Session
from vlacompile.serve.observations import Input, fit, inputs_of
from vlacompile.serve.tokenized_texts import own_instructions


class VlabPolicy(PreTrainedPolicy):
    config_class = VlabConfig
    name = "vlab"

    def __init__(self, config: VlabConfig, **_kwargs: Any):
        """_kwargs: dataset statistics and the like, which LeRobot's factory passes to every policy: a bundle has its
        own. Raises the errors of opening a bundle."""
        super().__init__(config)
        self.session = Session(config.bundle, threads=config.threads)
        bundle = one_backbone(read_bundle(config.bundle), config.backbone or None)
        self.plan, self.inputs = bundle.plan, inputs_of(bundle.plan)
        if self.plan.backbones:
            self.session.select(self.plan.backbones[0].name)
        self.instructions = (read_instructions(config.checkpoint, self.inputs) if config.checkpoint else
                             own_instructions(bundle))
        self._draw = np.random.default_rng(config.seed)
        self.eval()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, *, config: VlabConfig | None = None, **kwargs: Any):
        """A directory with a config.json of type "vlab", or a bundle itself."""
        if config is None:
            path = Path(pretrained_name_or_path)
            config = (VlabConfig(bundle=str(path)) if (path / "plan.bin").is_file() else
                      PreTrainedConfig.from_pretrained(path, **kwargs))
        return cls(config)

    def reset(self) -> None:
        """The beginning of an episode."""
        self.session.reset()

    def select_action(self, batch: dict[str, Any], **_kwargs: Any) -> torch.Tensor:
        """The next action [1,action_dim]. A new chunk is predicted when the queue is empty; with temporal ensembling,
        or if the policy reads past observations, every observation is processed."""
        observation = self._observation(batch)
        consume, queue = self.plan.action.consume, self.session.queue()
        if queue.remaining == 0 or queue.due or queue.chunks == 0 or isinstance(consume, Ensemble):
            self._write(observation)
            self.session.step()
        elif self.plan.histories:
            self._write(observation)
            self.session.observe()
        return torch.from_numpy(self.session.pop())[None].to(self.config.device)

    def predict_action_chunk(self, batch: dict[str, Any], **_kwargs: Any) -> torch.Tensor:
        """A chunk [1,H,action_dim] for this observation; it also replaces the queue of `select_action`."""
        self._write(self._observation(batch))
        self.session.step()
        action = self.plan.action
        if action.decode:
            rows = [self.session.pop() for _ in range(action.execute_steps)]
            return torch.from_numpy(np.stack(rows))[None].to(self.config.device)
        chunk = self.session.read(self.plan.values[action.value].name)
        return torch.from_numpy(chunk.reshape(1, action.chunk_steps, action.action_dim)).to(self.config.device)

    def _observation(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """{source: array} of all inputs except noise. Raises Refusal, SourceError."""
        found = {}
        for name, wanted in self.inputs.items():
            if name in batch:
                found[name] = fit(wanted, name, _content(wanted, batch[name]))
        text = batch.get("task")
        text = text[0] if isinstance(text, (list, tuple)) and len(text) == 1 else text
        if self.instructions is not None and isinstance(text, str):
            found = self.instructions(text) | found
        missing = [n for n, i in self.inputs.items() if n not in found and i.update != "step"]
        if missing:
            raise SourceError(f'the observation has no "{missing[0]}"', where="the batch",
                              why=f"it has {', '.join(sorted(batch))}",
                              fix="rename the robot's cameras to the bundle's names (rename_map); for an instruction, "
                                  "give --policy.checkpoint and a task")
        return found

    def _write(self, observation: dict[str, np.ndarray]) -> None:
        for name, wanted in self.inputs.items():
            if name not in observation:
                draw = self._draw.standard_normal if self.config.noise == "normal" else self._draw.random
                observation = {**observation, name: draw(wanted.dims).astype(np.float32)}
        for name, array in observation.items():
            self.session.write(name, array)

    def get_optim_params(self) -> dict:
        raise _not_trained(self.config)

    def forward(self, batch: dict[str, torch.Tensor]):
        raise _not_trained(self.config)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Only config.json, which names the bundle."""
        where = str(Path(self.config.bundle).resolve())
        dataclasses.replace(self.config, bundle=where)._save_pretrained(save_directory)


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


def _not_trained(config: VlabConfig) -> ConfigError:
    return ConfigError("a bundle cannot be trained", where=config.bundle, why="its weights are compiled",
                       fix="train the checkpoint, then compile it again")
