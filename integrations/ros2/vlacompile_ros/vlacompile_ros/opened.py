"""A bundle as the node needs it: the session, a reader per topic, and what comes by no topic (instruction, noise).

Owns what is refused before a message comes. Must not know rclpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlart.bundle.directory import one_backbone, read_bundle
from vlart.bundle.plan.plan import Plan
from vlart.bundle.precision_record import require_calibrated
from vlart.bundle.signature import require_signed
from vlart.errors import ConfigError, nearest
from vlart.ros.contents import Reader, readers_of
from vlart.ros.mapping import TopicMap
from vlart.runtime.async_session import AsyncSession
from vlart.serve.observations import Input, inputs_of
from vlart.serve.tokenized_texts import Instructions, own_instructions
from vlart.verify.trial import try_bundle
from vlart.vocabulary import NUMPY_DTYPES


@dataclass(frozen=True)
class Opened:
    """silent: nothing is published for a safe action. noise: the inputs of class step, drawn as `control.noise` says.
    constants: {input: content} of those that never change."""

    plan: Plan
    session: AsyncSession
    readers: Mapping[str, Reader]
    instructions: Instructions | None
    noise: Mapping[str, Input]
    constants: Mapping[str, np.ndarray]
    kind: str | None
    random: np.random.Generator
    silent: bool

    @property
    def needs_text(self) -> bool:
        return self.instructions is not None

    def tokens(self, text: str) -> dict[str, np.ndarray]:
        """{input: content} of an instruction. Raises Refusal."""
        return {} if self.instructions is None else self.instructions(text)

    def without_topic(self) -> dict[str, np.ndarray]:
        """{input: content} of the constants, and of newly drawn noise."""
        draw = self.random.standard_normal if self.kind == "normal" else self.random.random
        return {**self.constants, **{n: draw(i.dims).astype(NUMPY_DTYPES[i.dtype]) for n, i in self.noise.items()}}


def open_policy(bundle: str | Path, topics: TopicMap, where: Callable[[str], str] = str, *,
                signers: str | Path | None = None, native_code: bool = False, uncalibrated: bool = False,
                tried: bool = True) -> Opened:
    """signers: take only a bundle that one of them signed, who then vouches for its native code. native_code,
    uncalibrated: as PolicyHost's. tried: replay the bundle's own frames in a child process first. Raises VlaError."""
    if signers is not None:
        require_signed(bundle, Path(signers))
        native_code = True
    control, failure = topics.control, topics.on_failure
    read = one_backbone(read_bundle(bundle), control.backbone)
    plan = read.plan
    require_calibrated(read, uncalibrated)
    if topics.actions is None:
        raise ConfigError("the map has no actions", where=where(""), why="the node publishes them",
                          fix="write actions: with topic, type and rate_hz")
    inputs, instructions = inputs_of(plan), own_instructions(read)
    constants = _constants(topics, inputs, where)
    spoken = {plan.values[v].name for t in plan.texts for v in (t.tokens, t.mask) if v is not None}
    _require_instruction(topics, instructions, where)
    noise = {n: i for n, i in inputs.items() if i.update == "step" and n not in {*topics.observation, *constants}}
    if noise and control.noise is None:
        raise ConfigError(f'nothing draws the policy\'s "{min(noise)}"', where=where("control"),
                          why="it is the noise that a chunk begins with",
                          fix="write noise: normal (or uniform) under control")
    inputs = {n: i for n, i in inputs.items() if n not in {*noise, *constants}
              and (instructions is None or n not in spoken)}
    readers = readers_of(topics, inputs, where)
    _require_actions(plan, topics, where)
    if tried:
        try_bundle(bundle, threads=control.threads, native_code=native_code)
    session = AsyncSession(
        bundle, lead_ticks=control.lead_ticks, stale_ticks=control.stale_ticks, deadline_ticks=control.deadline_ticks,
        expire=control.expire, threads=control.threads, native_code=native_code,
        safe=np.asarray(failure.action, np.float32) if failure.action else
        "zero" if failure.safe == "zero" else "hold")
    if plan.backbones:
        session.select(plan.backbones[0].name)
    session.start()
    return Opened(plan, session, readers, instructions, noise, constants, control.noise,
                  np.random.default_rng(control.seed), failure.safe == "silent" and not failure.action)


def _constants(topics: TopicMap, inputs: Mapping[str, Input], where: Callable[[str], str]) -> dict[str, np.ndarray]:
    """Raises ConfigError."""
    found = {}
    for name, numbers in topics.constants.items():
        key = f"constants.{name}"
        if name not in inputs or name in topics.observation:
            raise ConfigError(f'"{name}" is no input without a topic', where=where(key),
                              why="it has one under observation" if name in inputs else nearest(name, inputs),
                              fix="name another of the policy's inputs")
        array = np.asarray(numbers, np.float64)
        if array.size != np.prod(inputs[name].dims):
            raise ConfigError(f'"{name}" takes {np.prod(inputs[name].dims)} numbers', where=where(key),
                              why=f"{array.size} are given", fix=f"give {inputs[name].text()}, row by row")
        found[name] = array.astype(NUMPY_DTYPES[inputs[name].dtype]).reshape(inputs[name].dims)
        if not np.array_equal(found[name].astype(np.float64), array.reshape(inputs[name].dims)):
            raise ConfigError(f'"{name}" takes {inputs[name].dtype}', where=where(key),
                              why="a number is none of that type", fix=f"give {inputs[name].text()}")
    return found


def _require_instruction(topics: TopicMap, instructions: Instructions | None, where: Callable[[str], str]) -> None:
    if instructions is not None and topics.instruction is None:
        raise ConfigError("the map has no instruction", where=where(""), why="the policy takes one",
                          fix="write instruction: with a text, or the topic that it comes by")
    if instructions is None and topics.instruction is not None:
        raise ConfigError("the policy takes no instruction as text", where=where("instruction"),
                          why="the bundle has no tokenizer", fix="remove instruction; if the policy takes token ids, "
                          "write them under constants")


def _require_actions(plan: Plan, topics: TopicMap, where: Callable[[str], str]) -> None:
    dim = plan.action.action_dim if plan.action else 0
    if not dim:
        raise ConfigError("the policy gives no actions", where=f'bundle "{plan.name}"',
                          why="its plan declares none", fix='build it with an output "action" [1,h,n]')
    joints = topics.actions.joints if topics.actions else ()
    if joints and len(joints) != dim:
        raise ConfigError(f"an action has {dim} numbers", where=where("actions.joints"),
                          why=f"{len(joints)} joints are named", fix="name one joint per number")
