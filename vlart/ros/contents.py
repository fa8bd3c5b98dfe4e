"""A message of a topic -> the content of a policy's input, and the time that it is of.

Owns what each type of message means: joints by their names, frames as the policy takes them, text. Messages are
anything with the fields of ROS 2's: rclpy's, those of a bag, those of a DDS binding. Must not import anything of ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlart.errors import ConfigError, RuntimeFailure, nearest
from vlart.ros import images
from vlart.ros.mapping import COMPRESSED, IMAGE, JOINTS, Topic, TopicMap
from vlart.serve.observations import MAX_TEXT, Input, fit
from vlart.serve.refusal import Refusal
from vlart.serve.resize import resizer

POSITION = ("position",)


class Reader:
    """Reads the messages of one input. Raises ConfigError for a way to resize that is not there."""

    def __init__(self, name: str, topic: Topic, wanted: Input):
        self.name, self.topic, self.wanted = name, topic, wanted
        self._resize = None if topic.resize is None else resizer(topic.resize)

    def read(self, message: Any) -> np.ndarray:
        """The content, of the input's dtype and shape. Raises Refusal: nothing of a refused message is used."""
        try:
            found = self._content()(message)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise Refusal(f"a message on {self.topic.topic} is no {self.topic.type}", where=f'input "{self.name}"',
                          why=str(error).partition("\n")[0], fix=f"publish {self.topic.type} there") from error
        except Refusal as refusal:
            raise Refusal(f"{refusal.what} on {self.topic.topic}", where=f'input "{self.name}", {refusal.where}',
                          why=refusal.why, fix=refusal.fix) from refusal
        return fit(self.wanted, self.topic.topic, found)

    def _content(self) -> Callable[[Any], np.ndarray]:
        if self.topic.type in (IMAGE, COMPRESSED):
            return self._frame
        return self._joints if self.topic.type == JOINTS else self._numbers

    def _frame(self, message: Any) -> np.ndarray:
        wanted, channels, size = self.wanted, self.wanted.dims[-1], self.wanted.dims[1:3]
        found = (images.image(message, self.topic.channels) if self.topic.type == IMAGE
                 else images.compressed(message, None if self._resize is not None else size))
        if wanted.dtype == "u8" and found.dtype == np.uint16:  # as cv_bridge does, the full range
            found = ((found.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        if channels == 3 and found.shape[2] == 1 and found.dtype == np.uint8:
            found = np.repeat(found, 3, axis=2)
        if found.shape[:2] == size:
            return found
        if self._resize is None or found.dtype != np.uint8:
            raise images.other_size(found.shape[:2], size)
        try:
            return self._resize(found, size)
        except (ConfigError, RuntimeFailure) as error:
            raise Refusal(f"a frame of {found.shape[1]} x {found.shape[0]}", where="width, height", why=error.why,
                          fix="publish frames of a size that can be resized") from error

    def _joints(self, message: Any) -> np.ndarray:
        names = list(message.name)
        place = {name: i for i, name in enumerate(names)}
        if len(place) != len(names):
            raise Refusal("a JointState with a joint twice", where="name", why=", ".join(map(str, names))[:200],
                          fix="publish each joint once")
        missing = [j for j in self.topic.joints if j not in place]
        if missing:
            raise Refusal(f'a JointState without the joint "{missing[0]}"', where="name",
                          why=f"it has {', '.join(map(str, names))[:200] or 'none'}",
                          fix="subscribe to a topic whose messages have all joints, or correct joints")
        order, parts = [place[j] for j in self.topic.joints], []
        for field in self.topic.fields or POSITION:
            numbers = _float64(getattr(message, field), field)
            if numbers.shape != (len(names),):
                raise Refusal(f"a JointState with {numbers.size} numbers of {field}", where=field,
                              why=f"it names {len(names)} joints", fix=f"publish {field} of every joint")
            parts.append(numbers[order])
        return np.concatenate(parts).reshape(self.wanted.dims)

    def _numbers(self, message: Any) -> np.ndarray:
        numbers = _float64(message.data, "data")
        count = int(np.prod(self.wanted.dims))
        if numbers.size != count:
            raise Refusal(f"a message of {numbers.size} numbers", where="data", why=f"the policy takes {count}",
                          fix="publish one number per element of the input")
        return numbers.reshape(self.wanted.dims)


def _float64(numbers: Any, field: str) -> np.ndarray:
    """[n]. Raises Refusal."""
    try:
        found = np.asarray(numbers)
        if found.dtype.kind not in "fiub":
            raise TypeError(f"they are {found.dtype}")
        return found.astype(np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise Refusal("a message whose numbers are none", where=field, why=str(error).partition("\n")[0],
                      fix="send ROS's own message") from error


def text_of(message: Any) -> str:
    """Of a std_msgs String. Raises Refusal."""
    text = getattr(message, "data", None)
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise Refusal("a message is no instruction", where="data",
                      why=f"it has {len(text)} characters" if isinstance(text, str) else
                      f"it is a {type(text).__name__}",
                      fix=f"publish a std_msgs/msg/String of at most {MAX_TEXT} characters")
    return text


def stamp_ns(message: Any) -> int:
    """Of its header. Raises Refusal for one that no clock has set, or that is none."""
    try:
        stamp = message.header.stamp
        seconds, nanoseconds = int(stamp.sec), int(stamp.nanosec)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise Refusal("a message has no header", where="header.stamp", why=str(error).partition("\n")[0],
                      fix="publish a message with one, or say `stamp: arrival` of the topic") from error
    if seconds < 0 or not 0 <= nanoseconds < 1_000_000_000 or not seconds + nanoseconds:
        raise Refusal("a message whose time is not set", where="header.stamp",
                      why=f"it is {seconds} s and {nanoseconds} ns",
                      fix="have the driver set it, or say `stamp: arrival` of the topic")
    return seconds * 1_000_000_000 + nanoseconds


def readers_of(topics: TopicMap, inputs: Mapping[str, Input], where: Callable[[str], str] = str) -> dict[str, Reader]:
    """{input: its reader}. inputs: of the policy, those that come by no topic apart. where: says the line of a key.
    Raises ConfigError for an input that has no topic, a topic of no input, and one whose messages cannot fit."""
    for name in topics.observation:
        if name not in inputs:
            raise ConfigError(f'the policy has no input "{name}"', where=where(f"observation.{name}"),
                              why=nearest(name, inputs), fix="name one of the policy's inputs")
    missing = [i for n, i in inputs.items() if n not in topics.observation]
    if missing:
        raise ConfigError(f'the policy\'s input "{missing[0].name}" has no topic', where=where("observation"),
                          why="it takes " + ", ".join(f"{i.name} {i.text()}" for i in inputs.values()),
                          fix=f"write {missing[0].name} under observation, with its topic and type")
    for name, topic in topics.observation.items():
        _require_fits(name, topic, inputs[name], where)
    return {name: Reader(name, topic, inputs[name]) for name, topic in topics.observation.items()}


def _require_fits(name: str, topic: Topic, wanted: Input, where: Callable[[str], str]) -> None:
    """What can be said before a message comes."""
    frame = len(wanted.dims) == 4 and wanted.dims[0] == 1 and wanted.dims[3] in (1, 3)
    if topic.type in (IMAGE, COMPRESSED):
        if not frame or (topic.type == COMPRESSED and wanted.dtype != "u8"):
            raise ConfigError(f'"{name}" takes no images of {topic.type}', where=where(f"observation.{name}.type"),
                              why=f"it is {wanted.text()}; a frame is u8[1,H,W,3]",
                              fix="give the type of a topic with its numbers" if not frame else f"subscribe to {IMAGE}")
        return
    count = int(np.prod(wanted.dims))
    given = len(topic.joints) * len(topic.fields or POSITION)
    if topic.type == JOINTS and given != count:
        raise ConfigError(f'"{name}" takes {count} numbers', where=where(f"observation.{name}.joints"),
                          why=f"{given} are given, of {len(topic.joints)} joints",
                          fix="name as many joints as the policy was trained with")
