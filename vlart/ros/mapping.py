"""`TopicMap`: which topic of a robot is which input of a policy. One YAML file, read by the ROS 2 node and by whoever
reads a bag of the same topics.

Owns the schema and what it means; `observation`, `synchronise` and `instruction` are all that reading a bag needs. Must
not import anything of ROS.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vlart.errors import ConfigError, nearest
from vlart.files.tables import from_table
from vlart.files.yaml_lines import LocatedTable, read_yaml
from vlart.serve.observations import MAX_TEXT
from vlart.serve.resize import METHODS

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINTS, TEXT = "sensor_msgs/msg/JointState", "std_msgs/msg/String"
NUMBERS, TRAJECTORY = "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"
Observed = Literal["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState",
                   "std_msgs/msg/Float64MultiArray"]
Published = Literal["std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"]
Field = Literal["position", "velocity", "effort"]
Where = Callable[[str], str]  # the file and line of a key
NAME = re.compile(r"(~/|/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
LONGEST_NAME = 247  # RMW_TOPIC_MAX_NAME_LENGTH
MOST_TICKS, MOST_THREADS = 1_000_000, 1024


@dataclass(frozen=True)
class Topic:
    """An input's topic. joints: of a JointState, by name, in the policy's order; the message may have them in any, and
    others besides. fields: those of the message that the policy reads, one behind the other, each of all joints.
    channels: of an image whose encoding does not say it (8UC3). resize: a method of vlart/serve/resize.py for frames of
    another size than the policy's; None: they are refused. stamp: "header": the message's own time; "arrival": when it
    came, for a message without one or of another clock. within_ms: instead of `synchronise.within_ms`. reliable: ask
    for that quality of service, which a publisher of "best effort" does not give."""

    topic: str
    type: Observed
    joints: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    channels: Literal["rgb", "bgr"] | None = None
    resize: str | None = None
    stamp: Literal["header", "arrival"] = "header"
    within_ms: float | None = None
    reliable: bool = False


@dataclass(frozen=True)
class Synchronise:
    """How messages become one observation (synchronise.py). reference: the input whose messages each begin one; their
    time is its time. within_ms: the others' may be so far from it. wait_ms: so long after the reference's arrival one
    waits for a message nearer to it than those that are there. max_age_ms: an observation, or a message when it comes,
    that is older is refused. ahead_ms: so is one that is further ahead of the clock."""

    reference: str
    within_ms: float = 50.0
    wait_ms: float = 20.0
    max_age_ms: float = 500.0
    ahead_ms: float = 50.0


@dataclass(frozen=True)
class Instruction:
    """topic: of std_msgs/msg/String; None: the text never changes. text: the instruction until a message or a call
    brings another; None: nothing is done before. running: what becomes of the chunk that is executed when another
    instruction comes (AsyncSession.cancel)."""

    topic: str | None = None
    text: str | None = None
    running: Literal["keep", "drop", "episode"] = "drop"


@dataclass(frozen=True)
class Actions:
    """joints: the names of a JointTrajectory's joints, one per number of an action. rate_hz: of the control loop. An
    action is reached after reach_ms; None: one period."""

    topic: str
    type: Published
    rate_hz: float
    joints: tuple[str, ...] = ()
    frame: str = ""
    reach_ms: float | None = None


@dataclass(frozen=True)
class Control:
    """The options of vlart's AsyncSession, and the noise that a sampling policy starts from; seed: of it. backbone: of
    a bundle that has several; None: the first. lead_ticks: None: as `lead` says."""

    lead_ticks: int | None = None
    stale_ticks: int = 0
    deadline_ticks: int = 0
    expire: Literal["time", "execution"] = "time"
    threads: int = 1
    noise: Literal["normal", "uniform"] | None = None
    seed: int | None = None
    backbone: str | None = None

    def lead(self, execute_steps: int) -> int:
        """How many ticks before a chunk's `execute_steps` actions are used up the next one is asked for. A controller
        asks and takes an action in the same tick: asked for at the end, a chunk has no time to be computed in; a tick
        ahead it has one. Of a chunk of one action that action would be over by then."""
        if self.lead_ticks is not None:
            return self.lead_ticks
        return 1 if execute_steps > 1 else 0


@dataclass(frozen=True)
class Routes:
    """Of a bundle with several backbones, one of which is chosen per task. table: the .bin file that `vlacompile route
    fit` wrote. state: path without ending, where outcomes are kept (vlart.Router); None: they are forgotten with the
    node. Both are relative to the map."""

    table: str
    state: str | None = None


@dataclass(frozen=True)
class OnFailure:
    """What is published where no chunk of a fresh observation covers a tick, because one is late, or an input failed.
    safe: "hold" (the last action), "zero", "silent" (nothing). action: numbers instead. stop_after_ms: so long after
    the first such tick nothing is published any more. resume: "reset": until the service reset is called;
    "observation": until a chunk is there again."""

    safe: Literal["hold", "zero", "silent"] = "hold"
    action: tuple[float, ...] = ()
    stop_after_ms: float = 1000.0
    resume: Literal["reset", "observation"] = "reset"


@dataclass(frozen=True)
class TopicMap:
    """observation: {input of the policy: its topic}. constants: {input: its numbers}, in the order of memory, of one
    that never changes: the token ids of the only task, say. actions: None where nothing is published: of a bag."""

    observation: Mapping[str, Topic]
    synchronise: Synchronise
    instruction: Instruction | None = None
    constants: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    actions: Actions | None = None
    control: Control = field(default_factory=Control)
    router: Routes | None = None
    on_failure: OnFailure = field(default_factory=OnFailure)


def read_topic_map(path: str | Path) -> TopicMap:
    """Raises ConfigError with the line for what is unknown, missing, of the wrong type, or does not go together."""
    return topic_map(read_yaml(path))


def topic_map(located: LocatedTable) -> TopicMap:
    """read_topic_map, of a file that was read."""
    found: TopicMap = from_table(TopicMap, located.table, located.where)
    if not found.observation:
        raise ConfigError('"observation" is empty', where=located.where("observation"), why="a policy has inputs",
                          fix="write an input's name, and below it its topic and type")
    for name, topic in found.observation.items():
        _require_topic(topic, f"observation.{name}", located.where)
    names = (found.synchronise.reference, *found.observation)
    if names[0] not in names[1:]:
        raise ConfigError(f'the reference "{names[0]}" is no input', where=located.where("synchronise.reference"),
                          why=nearest(names[0], names[1:]), fix="name one of the inputs under observation")
    for key, least in (("within_ms", 0), ("wait_ms", 0), ("max_age_ms", 1), ("ahead_ms", 0)):
        _require_time(getattr(found.synchronise, key), f"synchronise.{key}", located.where, least)
    _require_time(found.on_failure.stop_after_ms, "on_failure.stop_after_ms", located.where)
    if not all(map(math.isfinite, found.on_failure.action)):
        raise ConfigError('"on_failure.action" is no action', where=located.where("on_failure.action"),
                          why="it has NaN or infinity", fix="give the numbers that are published")
    if found.actions is not None:
        _require_actions(found.actions, located.where)
    _require_control(found.control, located.where)
    text = found.instruction.text if found.instruction is not None else None
    if text is not None and len(text) > MAX_TEXT:
        raise ConfigError('"instruction.text" is too long', where=located.where("instruction.text"),
                          why=f"it has {len(text)} characters", fix=f"write at most {MAX_TEXT}")
    _require_apart(found, located.where)
    if found.router is None:
        return found
    if found.control.backbone is not None:
        raise ConfigError('"control.backbone" and "router" are both there', where=located.where("control.backbone"),
                          why="the router chooses the backbone", fix="remove one of them")
    return replace(found, router=_beside(located.path.parent, found.router))


def _beside(folder: Path, routes: Routes) -> Routes:
    state = None if routes.state is None else str(folder / routes.state)
    return Routes(str(folder / routes.table), state)


def _require_topic(topic: Topic, key: str, where: Where) -> None:
    _require_name(topic.topic, f"{key}.topic", where)
    if topic.type == JOINTS and not topic.joints:
        raise ConfigError(f'"{key}" has no joints', where=where(key),
                          why="a JointState has its joints in any order, an input in one",
                          fix="add joints: [NAME, ...] in the policy's order")
    for name, belongs_to in (("joints", (JOINTS,)), ("fields", (JOINTS,)), ("channels", (IMAGE,)),
                             ("resize", (IMAGE, COMPRESSED))):
        if getattr(topic, name) and topic.type not in belongs_to:
            raise ConfigError(f'"{key}" has {name}', where=where(f"{key}.{name}"), why=f"it is a {topic.type}; {name} "
                              f"belong to {' and '.join(belongs_to)}", fix=f"remove {name}, or correct the type")
    if topic.resize is not None and topic.resize not in METHODS:
        raise ConfigError(f'"{key}.resize" is "{topic.resize}"', where=where(f"{key}.resize"),
                          why=nearest(topic.resize, METHODS), fix=f"choose one of {', '.join(METHODS)}")
    if topic.type == NUMBERS and topic.stamp == "header":
        raise ConfigError(f'"{key}" has no time', where=where(key), why=f"a {NUMBERS} has no header",
                          fix="add stamp: arrival")
    for names, of in ((topic.joints, "joints"), (topic.fields, "fields")):
        _require_once(names, f"{key}.{of}", where)
    if topic.within_ms is not None:
        _require_time(topic.within_ms, f"{key}.within_ms", where)


def _require_actions(actions: Actions, where: Where) -> None:
    _require_name(actions.topic, "actions.topic", where)
    if not 0.01 <= actions.rate_hz <= 10_000:
        raise ConfigError(f'"actions.rate_hz" is {actions.rate_hz:g}', where=where("actions.rate_hz"),
                          why="it is the rate of the control loop", fix="give a number from 0.01 to 10000")
    if actions.type == TRAJECTORY and not actions.joints:
        raise ConfigError('"actions" has no joints', where=where("actions"), why=f"a {TRAJECTORY} names them",
                          fix="add joints: [NAME, ...], one per number of an action")
    if actions.type == NUMBERS and (actions.joints or actions.frame or actions.reach_ms is not None):
        raise ConfigError('"actions" has joints, a frame or a time', where=where("actions"),
                          why=f"a {NUMBERS} has numbers alone", fix=f"remove them, or publish a {TRAJECTORY}")
    _require_once(actions.joints, "actions.joints", where)
    if actions.reach_ms is not None:
        _require_time(actions.reach_ms, "actions.reach_ms", where)


def _require_name(topic: str, key: str, where: Where) -> None:
    """By the rules of rcl_validate_topic_name and rmw_validate_full_topic_name, without substitutions."""
    if not NAME.fullmatch(topic) or len(topic) > LONGEST_NAME:
        raise ConfigError(f'"{topic}" is no name of a topic', where=where(key),
                          why="such a name has letters, digits and _ between its /, no digit behind one, and at most "
                          f"{LONGEST_NAME} characters", fix="write it as `ros2 topic list` shows it")


def _require_apart(topics: TopicMap, where: Where) -> None:
    """One name, one type and one direction."""
    for name, topic in topics.observation.items():
        for other, later in topics.observation.items():
            if later.topic == topic.topic and later.type != topic.type:
                raise ConfigError(f"{topic.topic} has two types", where=where(f"observation.{other}.type"),
                                  why=f'it is {topic.type} of "{name}"', fix="correct one of them")
    heard = {t.topic: f'the input "{n}"' for n, t in topics.observation.items()}
    said = topics.instruction.topic if topics.instruction is not None else None
    if said in heard:
        raise ConfigError(f"{said} has two types", where=where("instruction.topic"), why=f"it is of {heard[said]}",
                          fix="give the topic of the instruction")
    if topics.actions is not None and topics.actions.topic in {*heard, said}:
        raise ConfigError(f"{topics.actions.topic} is heard and published", where=where("actions.topic"),
                          why=f"it is of {heard.get(topics.actions.topic, 'the instruction')}: the node would hear "
                              "itself",
                          fix="give the topic that the controller listens to")


def _require_control(control: Control, where: Where) -> None:
    for name, most in (("lead_ticks", MOST_TICKS), ("stale_ticks", MOST_TICKS), ("deadline_ticks", MOST_TICKS),
                       ("threads", MOST_THREADS), ("seed", None)):
        value = getattr(control, name)
        if value is not None and not 0 <= value <= (value if most is None else most):
            raise ConfigError(f'"control.{name}" is {value}', where=where(f"control.{name}"),
                              why="it is a number from 0" + ("" if most is None else f" to {most}"),
                              fix="give such a number")


def _require_once(names: tuple[str, ...], key: str, where: Where) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f'"{twice[0]}" is there twice', where=where(key), why="each name is of one number",
                          fix="remove one of them")


def _require_time(value: float, key: str, where: Where, least: float = 0) -> None:
    if not least <= value < 1e9:  # not: NaN
        raise ConfigError(f'"{key}" is {value:g}', where=where(key), why="it is a time in milliseconds",
                          fix=f"give a number of at least {least:g}")
