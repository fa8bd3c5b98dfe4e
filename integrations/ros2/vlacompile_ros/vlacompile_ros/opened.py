"""A bundle as the node needs it: the session, a reader per topic, the tasks, and what comes by no topic (noise).

Owns what is refused before a message comes. Must not know rclpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlacompile_ros.tasks import Tasks, Tokens
from vlart.bundle.directory import Bundle, one_backbone, read_bundle
from vlart.bundle.plan.plan import Plan
from vlart.bundle.precision_record import require_calibrated
from vlart.bundle.signature import require_signed
from vlart.errors import ConfigError, VlaError, nearest
from vlart.ros.contents import Reader, readers_of
from vlart.ros.mapping import TopicMap
from vlart.runtime.async_session import AsyncSession
from vlart.runtime.recorder import Recorder
from vlart.runtime.routed import require_backbones
from vlart.runtime.router import Router
from vlart.serve.observations import Input, inputs_of
from vlart.serve.tokenized_texts import Instructions, own_instructions
from vlart.verify.trial import try_bundle
from vlart.vocabulary import NUMPY_DTYPES


@dataclass(frozen=True)
class Opened:
    """silent: nothing is published for a safe action. needs_text: nothing is done without an instruction. noise: the
    inputs of class step, drawn as `control.noise` says. constants: {input: content} of those that never change."""

    session: AsyncSession
    tasks: Tasks
    readers: Mapping[str, Reader]
    needs_text: bool
    noise: Mapping[str, Input]
    constants: Mapping[str, np.ndarray]
    kind: str | None
    random: np.random.Generator
    silent: bool
    recorder: Recorder | None

    def without_topic(self) -> dict[str, np.ndarray]:
        """{input: content} of the constants, and of newly drawn noise."""
        draw = self.random.standard_normal if self.kind == "normal" else self.random.random
        return {**self.constants, **{n: draw(i.dims).astype(NUMPY_DTYPES[i.dtype]) for n, i in self.noise.items()}}

    def close(self) -> None:
        """What the router learnt is on disk already; the recording ends."""
        self.tasks.close()
        self.session.close()
        if self.recorder is not None:
            self.recorder.close()


def open_policy(bundle: str | Path, topics: TopicMap, where: Callable[[str], str] = str, *,
                signers: str | Path | None = None, native_code: bool = False, uncalibrated: bool = False,
                tried: bool = True, record: Recorder | None = None) -> Opened:
    """signers: take only a bundle that one of them signed, who then vouches for its native code. native_code,
    uncalibrated: as PolicyHost's. tried: replay the bundle's own frames in a child process first. record: what the
    policy and the router do, and close it with them. Raises VlaError."""
    if signers is not None:
        require_signed(bundle, Path(signers))
        native_code = True
    control, failure = topics.control, topics.on_failure
    whole = read_bundle(bundle)
    require_calibrated(whole, uncalibrated)
    if topics.actions is None:
        raise ConfigError("the map has no actions", where=where(""), why="the node publishes them",
                          fix="write actions: with topic, type and rate_hz")
    router, policies = _policies(whole, topics, record is not None)
    plan = next(iter(policies.values())).plan
    inputs: dict[str, Input] = {}
    for policy in policies.values():
        inputs |= inputs_of(policy.plan)
    instructions = {name: own_instructions(policy) for name, policy in policies.items()}
    needs_text = _require_instruction(topics, instructions, where)
    constants = _constants(topics, inputs, where)
    spoken = {policy.plan.values[v].name for policy in policies.values() for t in policy.plan.texts
              for v in (t.tokens, t.mask) if v is not None}
    noise = {n: i for n, i in inputs.items() if i.update == "step" and n not in {*topics.observation, *constants}}
    if noise and control.noise is None:
        raise ConfigError(f'nothing draws the policy\'s "{min(noise)}"', where=where("control"),
                          why="it is the noise that a chunk begins with",
                          fix="write noise: normal (or uniform) under control")
    inputs = {n: i for n, i in inputs.items() if n not in {*noise, *constants}
              and not (needs_text and n in spoken)}
    readers = readers_of(topics, inputs, where)
    _require_actions(plan, topics, where)
    if tried:
        try_bundle(bundle, threads=control.threads, native_code=native_code)
    session = None
    execute = plan.action.execute_steps if plan.action is not None else 0
    try:
        session = AsyncSession(
            bundle, lead_ticks=control.lead(execute), stale_ticks=control.stale_ticks,
            deadline_ticks=control.deadline_ticks, expire=control.expire, threads=control.threads,
            native_code=native_code, record=record,
            safe=np.asarray(failure.action, np.float32) if failure.action else
            "zero" if failure.safe == "zero" else "hold")
        if plan.backbones:
            session.select(plan.backbones[0].name)
        if router is not None and record is not None:
            router.record(record)
        session.start()
    except VlaError:
        for made in (router, session, record):
            if made is not None:
                made.close()
        raise
    tokens: Tokens = lambda text: {name: {} if read is None else read(text) for name, read in instructions.items()}
    return Opened(session, Tasks(tokens, router), readers, needs_text, noise, constants, control.noise,
                  np.random.default_rng(control.seed), failure.safe == "silent" and not failure.action, record)


def _policies(whole: Bundle, topics: TopicMap, recorded: bool) -> tuple[Router | None, dict[str | None, Bundle]]:
    """The router, and {backbone: the bundle as it is with that one selected} of those that it chooses among; without a
    router the one that is always run, under None. Raises VlaError."""
    if topics.router is None:
        return None, {None: one_backbone(whole, topics.control.backbone)}
    router = Router(topics.router.table, topics.router.state)
    require_backbones(router, whole.plan, topics.router.table, recorded)
    return router, {name: one_backbone(whole, name) for name in router.backbones}


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


def _require_instruction(topics: TopicMap, instructions: Mapping[str | None, Instructions | None],
                         where: Callable[[str], str]) -> bool:
    """Whether one is needed. Raises ConfigError."""
    without = [name for name, found in instructions.items() if found is None]
    if topics.router is not None and without:
        raise ConfigError(f'the backbone "{without[0]}" takes no instruction as text', where=where("router"),
                          why="the router chooses by the instruction, and the bundle has no tokenizer for it",
                          fix="build it with texts, or remove router and name one backbone under control")
    if not without and topics.instruction is None:
        raise ConfigError("the map has no instruction", where=where(""), why="the policy takes one",
                          fix="write instruction: with a text, or the topic that it comes by")
    if without and topics.instruction is not None:
        raise ConfigError("the policy takes no instruction as text", where=where("instruction"),
                          why="the bundle has no tokenizer", fix="remove instruction; if the policy takes token ids, "
                          "write them under constants")
    return not without


def _require_actions(plan: Plan, topics: TopicMap, where: Callable[[str], str]) -> None:
    dim = plan.action.action_dim if plan.action else 0
    if not dim:
        raise ConfigError("the policy gives no actions", where=f'bundle "{plan.name}"',
                          why="its plan declares none", fix='build it with an output "action" [1,h,n]')
    joints = topics.actions.joints if topics.actions else ()
    if joints and len(joints) != dim:
        raise ConfigError(f"an action has {dim} numbers", where=where("actions.joints"),
                          why=f"{len(joints)} joints are named", fix="name one joint per number")
