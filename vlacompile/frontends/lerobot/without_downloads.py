"""Makes a policy object of its sizes alone: what its class would download, to begin a training with, is in the
checkpoint.

Sizes of a backbone that only its repository says (a config.json of some kilobytes) are still read from there.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import weakref
from collections.abc import Iterable, Iterator
from unittest import mock

import torch
from torch import nn


class _Nothing(dict):
    """In place of downloaded weights."""


class Untrained:
    """The weights that would have been downloaded, as long as something refers to them; and what a checkpoint gave.
    unknown: its tensors that no module has."""

    def __init__(self) -> None:
        self._weights: list[weakref.ref[torch.Tensor]] = []
        self._given: set[int] = set()
        self.unknown: list[str] = []

    def note(self, model: nn.Module) -> None:
        self._weights += [weakref.ref(p) for p in model.parameters()]

    def outside(self, policy: nn.Module) -> bool:
        """Whether the policy keeps some that are no parameters of its own, and so are in no checkpoint."""
        gc.collect()
        own = {id(p) for p in policy.parameters()}
        return any(p is not None and id(p) not in own for p in (w() for w in self._weights))


    def give(self, module: nn.Module, names: Iterable[str], unknown: Iterable[str]) -> None:
        own = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
        self._given |= {id(own[name]) for name in names if name in own}
        self.unknown += unknown

    def missing(self, policy: nn.Module) -> list[str]:
        """Parameters of the policy that no checkpoint gave."""
        return [name for name, p in policy.named_parameters() if id(p) not in self._given]


@contextlib.contextmanager
def without_downloads() -> Iterator[Untrained]:
    """Within this context, models of transformers, diffusers, torchvision and timm that are to be loaded have random
    weights."""
    from diffusers import ModelMixin
    from torchvision.models import WeightsEnum
    from transformers import PreTrainedModel

    load, made = nn.Module.load_state_dict, Untrained()

    def load_state_dict(self, state_dict, *args, **kwargs):
        if isinstance(state_dict, _Nothing):
            made.note(self)
            return None
        found = load(self, state_dict, *args, **kwargs)
        made.give(self, state_dict, found.unexpected_keys)
        return found

    def sized(cls, name=None, *args, config=None, **kwargs):
        if config is None:
            config = cls.config_class.from_pretrained(name, subfolder=kwargs.get("subfolder") or "")
        chosen = {k: kwargs[k] for k in ("dtype", "torch_dtype", "attn_implementation") if k in kwargs}
        model = cls._from_config(config, **chosen)
        made.note(model)
        return model

    def described(cls, name, *args, subfolder=None, **kwargs):
        model = cls.from_config(cls.load_config(name, subfolder=subfolder))
        made.note(model)
        return model

    def kept(model, *args, **kwargs):
        made.note(model)

    timm = importlib.util.find_spec("timm") is not None  # only plugins use it
    with (mock.patch("timm.models._builder.load_pretrained", kept) if timm
          else contextlib.nullcontext(),
          mock.patch.object(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: _Nothing()),
          mock.patch.object(nn.Module, "load_state_dict", load_state_dict),
          mock.patch.object(ModelMixin, "from_pretrained", classmethod(described)),
          mock.patch.object(PreTrainedModel, "from_pretrained", classmethod(sized))):
        yield made


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Within this context, models of transformers leave their weights as they are made: weights without content cannot
    be drawn, and version 5 asks them for numbers."""
    from transformers import PreTrainedModel

    with mock.patch.object(PreTrainedModel, "initialize_weights", lambda self: None):
        yield
