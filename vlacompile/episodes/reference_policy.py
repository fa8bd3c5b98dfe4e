"""A policy in PyTorch beside a session: the same inputs, with the observations before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from vlacompile.compiler.capture.history import append, newest_of
from vlacompile.policy.policy import Policy
from vlart.bundle.plan.action import Realtime
from vlart.bundle.plan.plan import Plan
from vlart.errors import SourceError, nearest


class ReferencePolicy:
    """Raises SourceError if the policy has other inputs or outputs than the bundle."""

    def __init__(self, policy: Policy, plan: Plan, where: str):
        self.policy, self._lengths = policy, bool(plan.buckets)
        added = _guidance(plan) - set(policy.sources)  # by the compiler: PyTorch runs without it
        self._inputs = [n for n in plan.source_names() if n not in added]
        self._past: dict[str, torch.Tensor] = {}
        newest = newest_of(dict(policy.sources), policy.example_inputs)
        for source in plan.sources:
            value = plan.values[source.value]
            if value.name in added:
                continue
            shape = tuple(newest[value.name].shape) if value.name in newest else None
            if shape != tuple(value.type.dims):
                raise _another(f'input "{value.name}"', where, nearest(value.name, newest) if shape is None else
                               f"it is {list(shape)} there, {list(value.type.dims)} in the bundle")
        assert plan.action is not None
        output = self._own_name(plan.values[plan.action.value].name)
        if output not in policy.outputs:
            raise _another(f'output "{output}"', where, nearest(output, policy.outputs))
        self.reset()

    def _own_name(self, output: str) -> str:
        """The policy's, of an output of the bundle: <backbone>.<output> where it is at several lengths of its text."""
        return output.partition(".")[2] if self._lengths else output

    def reset(self) -> None:
        """Begin an episode."""
        self._past = {}
        self._carried: dict[str, torch.Tensor] = {}

    def see(self, observation: Mapping[str, np.ndarray]) -> None:
        """The newest observation [1,...] of every source that has a history; once per frame."""
        for name, array in observation.items():
            if (count := self.policy.sources[name].history) > 1:
                self._past[name] = append(self._past.get(name), torch.from_numpy(array), count)

    def encode(self, text: str, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The sources that the host computes, of a task's text and recorded values."""
        encoding = self.policy.encoding
        return {} if encoding is None else {n: t.numpy() for n, t in encoding.encode(text, recorded).items()}

    def infer(self, output: str, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """The output on what a session was given, a step further. read: {source: its content}."""
        given = {n: torch.from_numpy(read(n)) for n in self._inputs} | self._past
        with torch.no_grad():
            values = self.policy.infer(**{**self.policy.example_inputs, **given, **self._carried})
        self._carried, found = self.policy.handed_on(values), values[self._own_name(output)]
        return (found.float() if found.is_floating_point() else found).numpy()


def _guidance(plan: Plan) -> set[str]:
    """The sources that the runtime fills from the last chunk."""
    consume = plan.action.consume if plan.action else None
    filled = (consume.previous, consume.weights) if isinstance(consume, Realtime) else ()
    return {plan.values[v].name for v in filled if v is not None}


def _another(what: str, where: str, why: str) -> SourceError:
    return SourceError(f"the policy is not that of the bundle: {what}", where=where, why=why,
                       fix="give the source that the bundle was built from")
