"""Which modules of a policy compute something else in training mode than in evaluation mode.

Owns what each of PyTorch's layers does with its mode, and how the code of other modules is asked. Must not know graphs.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from types import CodeType, MethodType

import torch
from torch import nn

from vlart.errors import CaptureError

_TORCH_LAYERS = "torch.nn.modules."
_SET_THE_MODE = frozenset({"train", "eval"})


def require_evaluation_mode(policy: str, module: nn.Module) -> None:
    """Raises CaptureError if a module is in training mode and computes something else there. A mode that nothing reads,
    as of an image transform or of an nn.Identity that took the place of a head after eval(), is as good as the other.
    """
    for name, m in module.named_modules():
        does = in_training(m) if m.training and name else None
        if does is not None:
            raise CaptureError(
                "the policy is in training mode",
                where=f'Policy "{policy}", module {name} ({type(m).__name__})',
                why=f"in training mode it {does}, which no robot should do",
                fix="call .eval() on the module before it is given to Policy",
            )


def in_training(module: nn.Module) -> str | None:
    """What a module itself, not its children, does otherwise in training mode; None if it does the same."""
    for kind, rule in _RULES:
        if isinstance(module, kind) and (does := rule(module)) is not None:
            return does
    if isinstance(module, torch.jit.ScriptModule):
        return "runs a script that may read its mode"
    line = next((at for f in _functions(module) if (at := _reads_mode(f)) is not None), None)
    return None if line is None else f"may take another way ({line} reads the mode)"


def _dropout(m) -> str | None:
    return f"drops values (p={m.p:g})" if m.p > 0 else None


def _batch_norm(m) -> str | None:  # without running statistics it takes those of the batch in either mode
    return "normalises with the statistics of its input" if m.running_mean is not None else None


def _instance_norm(m) -> str | None:
    return "normalises with the statistics of its input" if m.track_running_stats else None


def _rrelu(m) -> str | None:
    return "draws its slopes" if m.lower != m.upper else None


def _attention(m) -> str | None:
    return f"drops attention weights (p={m.dropout:g})" if m.dropout > 0 else None


def _recurrent(m) -> str | None:
    return f"drops values between its layers (p={m.dropout:g})" if m.dropout > 0 and m.num_layers > 1 else None


_RULES: tuple[tuple[type, Callable[[nn.Module], str | None]], ...] = (
    (nn.modules.dropout._DropoutNd, _dropout), (nn.modules.batchnorm._BatchNorm, _batch_norm),
    (nn.modules.instancenorm._InstanceNorm, _instance_norm), (nn.RReLU, _rrelu), (nn.MultiheadAttention, _attention),
    (nn.RNNBase, _recurrent),
)


def _functions(module: nn.Module) -> Iterator[Callable]:
    """The code that is the module's own: methods, but not those of PyTorch's layers; what was put in their place on
    this object; hooks."""
    for cls in type(module).__mro__:
        if cls is object or cls.__module__.startswith(_TORCH_LAYERS):
            continue
        for name, value in vars(cls).items():
            if name not in _SET_THE_MODE:
                yield from _plain(value)
    for name, value in vars(module).items():
        if name not in _SET_THE_MODE:
            yield from _plain(value)
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        yield from _plain(hook if hasattr(hook, "__code__") else type(hook).__call__)


def _plain(value) -> Iterator[Callable]:
    if isinstance(value, property):
        value = value.fget
    value = value.__func__ if isinstance(value, (staticmethod, classmethod, MethodType)) else value
    if isinstance(getattr(value, "__code__", None), CodeType):
        yield value


def _reads_mode(function: Callable) -> str | None:
    """The name of a function that reads an attribute `training`, of whatever object."""
    stack = [function.__code__]
    while stack:
        code = stack.pop()
        stack += [c for c in code.co_consts if isinstance(c, CodeType)]
        if "training" in code.co_names and any(
                i.argval == "training" and i.opname.startswith("LOAD_") for i in dis.get_instructions(code)):
            return function.__qualname__
        if "getattr" in code.co_names and "training" in code.co_consts:
            return function.__qualname__
    return None
