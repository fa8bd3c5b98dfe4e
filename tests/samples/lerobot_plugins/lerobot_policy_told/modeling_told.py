"""The policy of the plugin `told`."""

from __future__ import annotations

from collections import deque

import torch
from lerobot.policies.act.modeling_act import ACTTemporalEnsembler
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from .configuration_told import ToldConfig


class ToldPolicy(PreTrainedPolicy):
    config_class = ToldConfig
    name = "told"

    def __init__(self, config: ToldConfig, **kwargs):
        super().__init__(config)
        config.validate_features()
        self.text = AutoModel.from_pretrained(config.language)  # downloads it, where a training begins
        self.tokenizer = AutoTokenizer.from_pretrained(config.language)
        self.see = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                                 nn.Linear(32, config.width))
        self.act = nn.Sequential(nn.Linear(config.width + self.text.config.hidden_size + 6, config.width), nn.SiLU(),
                                 nn.Linear(config.width, config.chunk_size * config.action_feature.shape[0]))
        if config.temporal_ensemble_coeff is not None:
            self.temporal_ensembler = ACTTemporalEnsembler(config.temporal_ensemble_coeff, config.chunk_size)
        self.reset()

    def reset(self):
        self._queue = deque(maxlen=self.config.n_action_steps)
        if self.config.temporal_ensemble_coeff is not None:
            self.temporal_ensembler.reset()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        if self.config.temporal_ensemble_coeff is not None:
            return self.temporal_ensembler.update(self.predict_action_chunk(batch))
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(batch)[:, :self.config.n_action_steps].transpose(0, 1))
        return self._queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        texts = [self.config.greeting + task for task in batch["task"]]
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.config.max_length,
                                 return_tensors="pt" if self.config.ids == "pt" else None)
        ids, mask = (torch.as_tensor(encoded[name]) for name in ("input_ids", "attention_mask"))
        hidden = self.text(input_ids=ids, attention_mask=mask).last_hidden_state
        counted = (mask if self.config.mean_of == "tokens" else torch.ones_like(mask))[..., None].to(hidden.dtype)
        heard = (hidden * counted).sum(1) / counted.sum(1)
        seen = sum(self.see(batch[name]) for name in self.config.image_features)
        flat = self.act(torch.cat([seen, heard, batch["observation.state"]], -1))
        return flat.reshape(1, self.config.chunk_size, -1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
        raise NotImplementedError("it is not trained here")

    def get_optim_params(self) -> dict:
        return self.parameters()
