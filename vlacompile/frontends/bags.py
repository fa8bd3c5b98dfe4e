"""A recorded bag -> observations of a policy: an MCAP file with ROS 2 messages, or a directory of rosbag2 (MCAP or
SQLite), read by the topic map of the ROS 2 node (vlart/ros).

A bag is read twice: which messages belong together is a matter of their times, and only the frames that are taken are
decoded. Must not know what becomes of the observations.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import closing, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vlacompile.frontends.dataset import read_info
from vlart.errors import CalibrationError, ConfigError, VlaError, nearest
from vlart.ros.contents import Reader, readers_of, stamp_ns, text_of
from vlart.ros.mapping import COMPRESSED, IMAGE, TEXT, TopicMap, read_topic_map
from vlart.ros.synchronise import MS, Synchroniser
from vlart.serve.observations import Input
from vlart.serve.refusal import Refusal

METADATA = "metadata.yaml"  # of a directory of rosbag2
MOST_WORDS = 300  # of what a library says
Row = tuple[str, str, int, Any]  # topic, type, when it was recorded, content
INSTALL = "pip install 'vlacompile[bags]'"


def is_bag(path: Path) -> bool:
    return path.suffix == ".mcap" or (path / METADATA).is_file()


def require_recorded(path: Path, topics: Path | None) -> None:
    """Raises CalibrationError or ConfigError before anything else is read: what `path` is, and whether `topics` belongs
    to it."""
    if is_bag(path):
        if topics is None:
            raise ConfigError("a bag does not say which topic is which input", where="--calibrate", why=str(path),
                              fix="give the map of the ROS 2 node too: --topics FILE.yaml (docs/ros2.md)")
        read_topic_map(topics)
        return
    if topics is not None:
        raise ConfigError("a topic map belongs to a bag", where="--topics", why=f"{path} is none: a bag is "
                          "FILE.mcap, or a directory of rosbag2", fix="leave --topics out, or give a bag")
    read_info(path)


@dataclass(frozen=True)
class Message:
    """number: counted over the messages of the topics that are read. came_ns: when it was recorded."""

    number: int
    topic: str
    type: str
    came_ns: int
    content: Any


@dataclass(frozen=True)
class Seen:
    """An observation: {input: number of its message}, and the instruction then."""

    parts: Mapping[str, int]
    text: str


@dataclass(frozen=True)
class Bag:
    """path: the file or directory. topics: the map. readers: of its inputs. observations: in their order; each input's
    messages are those of the node's rule. accounts: what became of the messages, in words, per input."""

    path: Path
    topics: TopicMap
    readers: Mapping[str, Reader]
    observations: tuple[Seen, ...] = field(repr=False)
    accounts: Mapping[str, str]

    @property
    def version(self) -> str:
        return "MCAP" if self.path.suffix == ".mcap" else "rosbag2"

    def spread(self, count: int) -> list[int]:
        """Places of `count` observations at equal distances; all if there are fewer."""
        taken = min(count, len(self.observations))
        return [int((k + 0.5) * len(self.observations) / taken) for k in range(taken)]

    def contents(self, places: list[int]) -> dict[int, dict[str, np.ndarray]]:
        """{place of an observation: {input: its content, with the leading 1}}. Raises CalibrationError for a message
        that the node would refuse."""
        wanted = {number: name for place in places for name, number in self.observations[place].parts.items()}
        found: dict[int, np.ndarray] = {}
        for message in _messages(self.path, self.topics):
            if message.number in wanted:
                found[message.number] = self._read(wanted[message.number], message)
        return {place: {n: found[number] for n, number in self.observations[place].parts.items()} for place in places}

    def _read(self, name: str, message: Message) -> np.ndarray:
        try:
            return self.readers[name].read(message.content)
        except Refusal as refusal:
            raise CalibrationError(refusal.what, where=f"{self.path}, {refusal.where}", why=refusal.why,
                                   fix="correct the topic map, or calibrate on another bag") from refusal


def open_bag(path: Path, map_file: Path, inputs: Mapping[str, Input]) -> Bag:
    """inputs: of the policy, those that topics fill. Raises ConfigError for a map that does not fit them,
    CalibrationError for a bag that lacks a topic, cannot be read or holds no whole observation."""
    topics = read_topic_map(map_file)
    readers = readers_of(topics, inputs)
    synchroniser = Synchroniser(topics.observation, topics.synchronise)
    inputs_of: dict[str, list[str]] = {}
    for name, topic in topics.observation.items():
        inputs_of.setdefault(topic.topic, []).append(name)
    said = None if topics.instruction is None else topics.instruction.topic
    text = (topics.instruction.text or "") if topics.instruction else ""
    found: list[Seen] = []
    reference, now = topics.synchronise.reference, 0
    texts: dict[int, str] = {}  # the instruction when a message of the reference came

    def take() -> None:
        observation = synchroniser.take(now)
        if observation is not None:
            found.append(Seen(dict(observation.contents), texts[observation.contents[reference]]))

    for message in _messages(path, topics):
        now = message.came_ns
        if message.topic == said:
            text = _instruction(path, message)
        for name in inputs_of.get(message.topic, ()):
            of = topics.observation[name]
            if message.type != of.type:
                _refuse(path, f"{message.topic} is {message.type}", f'the map says {of.type} of input "{name}"',
                        "correct the type in the topic map")
            try:
                stamp = message.came_ns if of.stamp == "arrival" else stamp_ns(message.content)
                if of.type not in (IMAGE, COMPRESSED):  # those are decoded when they are taken
                    readers[name].read(message.content)
            except Refusal as refusal:
                synchroniser.refuse(name, "unfit", str(refusal))
                continue
            if name == reference:
                texts[message.number] = text
            synchroniser.add(name, stamp, message.number, now)
        take()
    now += round(MS * topics.synchronise.wait_ms)
    take()
    unheard = [n for n, a in synchroniser.accounts.items() if not a.received]
    if unheard:
        _refuse(path, f"the bag has no message of {topics.observation[unheard[0]].topic}",
                f'the map says it fills input "{unheard[0]}"', "record it, or name another topic in the topic map")
    accounts = {name: f"{a.received} messages, {a.used} used" + "".join(f", {n} {why}" for why, n in a.refused.items())
                for name, a in synchroniser.accounts.items()}
    if not found:
        _refuse(path, "the bag holds no whole observation", "; ".join(f"{n}: {a}" for n, a in accounts.items()),
                "look at the times of its messages: synchronise.within_ms, max_age_ms, ahead_ms, or stamp: arrival")
    return Bag(path, topics, readers, tuple(found), accounts)


def _instruction(path: Path, message: Message) -> str:
    if message.type != TEXT:
        _refuse(path, f"{message.topic} is {message.type}", f"an instruction is {TEXT}",
                "correct instruction.topic in the topic map")
    try:
        return text_of(message.content)
    except Refusal as refusal:
        raise CalibrationError(f"{refusal.what} on {message.topic}", where=f"{path}, {refusal.where}", why=refusal.why,
                               fix="correct instruction.topic in the topic map, or take another bag") from refusal


def _refuse(path: Path, what: str, why: str, fix: str) -> NoReturn:
    raise CalibrationError(what, where=str(path), why=why, fix=fix)


def _messages(path: Path, topics: TopicMap) -> Iterator[Message]:
    """Of the topics of the map, in the order in which they were recorded."""
    names = {t.topic for t in topics.observation.values()}
    said = None if topics.instruction is None else topics.instruction.topic
    read = _of_mcap if path.suffix == ".mcap" else _of_rosbag2
    with closing(read(path, names, said)) as rows:
        for number, (topic, kind, came_ns, content) in enumerate(_read_by_library(path, rows)):
            yield Message(number, topic, kind, came_ns, content)


def _read_by_library(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """What the libraries raise of bytes that anybody may have written is listed nowhere (struct.error, KeyError,
    NameError, apsw's own), and some of it they also print."""
    while True:
        try:
            with redirect_stderr(io.StringIO()):
                row = next(rows, None)
        except VlaError:
            raise
        except OSError as error:
            _refuse(path, f"{path.name} cannot be read", error.strerror or str(error), "give the path of an MCAP "
                    "file, or of a directory of rosbag2, that is whole")
        except Exception as error:  # noqa: BLE001  see above
            words = " ".join(str(error).split())
            _refuse(path, f"{path.name} cannot be read", f"{type(error).__name__}: {words}"[:MOST_WORDS],
                    "copy it again, completely")
        if row is None:
            return
        yield row


def _require_topics(path: Path, wanted: set[str], there: set[str]) -> None:
    if not there:
        _refuse(path, "the bag has no topics", "nothing was recorded, or it was not written to its end",
                "record again, or repair it (`mcap recover FILE`, `ros2 bag reindex DIR`)")
    missing = sorted(wanted - there)
    if missing:
        _refuse(path, f"the bag has no topic {missing[0]}", nearest(missing[0], there),
                "record it, or name the topic that the bag has in the topic map")


def _of_mcap(path: Path, wanted: set[str], said: str | None) -> Iterator[Row]:
    try:
        from mcap.reader import make_reader
        from mcap_ros2.decoder import DecoderFactory
    except ImportError as error:
        raise _not_installed(error) from error
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        channels = [] if summary is None else list(summary.channels.values())
        _require_topics(path, wanted, {c.topic for c in channels})
        for channel in channels:
            if channel.topic in (*wanted, said) and channel.message_encoding != "cdr":
                _refuse(path, f"{channel.topic} holds no messages of ROS 2",
                        f'they are "{channel.message_encoding}", and those of ROS 2 are "cdr"',
                        "give a bag that ROS 2 recorded; of a recording of our own, build takes what "
                        "`vlacompile export --lerobot DIR` writes")
        for schema, channel, message, content in reader.iter_decoded_messages(topics=[*wanted, *filter(None, [said])]):
            yield channel.topic, schema.name if schema else "", message.log_time, content


def _of_rosbag2(path: Path, wanted: set[str], said: str | None) -> Iterator[Row]:
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise _not_installed(error) from error
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        _require_topics(path, wanted, {c.topic for c in reader.connections})
        of = [c for c in reader.connections if c.topic in wanted or c.topic == said]
        for connection, came_ns, data in reader.messages(connections=of):
            yield connection.topic, connection.msgtype, came_ns, reader.deserialize(data, connection.msgtype)


def _not_installed(error: ImportError) -> CalibrationError:
    return CalibrationError(f"{error.name} is needed to read a bag", where="this Python environment",
                            why="it is not installed", fix=INSTALL)
