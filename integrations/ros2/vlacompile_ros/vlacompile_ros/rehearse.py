"""What the node would do with a recorded bag, without ROS: `python -m vlacompile_ros.rehearse BUNDLE TOPICS BAG`.

Plays the bag's messages to the controller in the order and at the times at which they were recorded, the control loop's
ticks between them, and says what became of every message and what was published. `--actions DIR` writes that as a bag.
Chunks are ready on the tick after their observation, whatever they take here. Needs the package rosbags.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlacompile_ros.controller import Command, Controller
from vlart.errors import ConfigError, VlaError, printable
from vlart.files.yaml_lines import read_yaml
from vlart.ros.mapping import TEXT, TopicMap, topic_map

SECOND = 1_000_000_000
LONGEST_GAP_S = 60  # that is played tick by tick


def recorded(bag: Path, topics: TopicMap) -> Iterator[tuple[int, tuple[str, ...], Any]]:
    """(time at which it was recorded, the inputs that it is of, none of them: the instruction, message), in that order.
    Raises ConfigError for what is no bag, and for a topic that is missing or of another type."""
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise ConfigError("the package rosbags is missing", where=str(bag), why="it reads bags",
                          fix="pip install rosbags") from error
    wanted: dict[str, tuple[tuple[str, ...], str]] = {}
    for name, t in topics.observation.items():
        wanted[t.topic] = (*wanted.get(t.topic, ((), ""))[0], name), t.type
    if topics.instruction is not None and topics.instruction.topic is not None:
        wanted[topics.instruction.topic] = (), TEXT
    try:
        reader = AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    except (AnyReaderError, OSError) as error:
        raise ConfigError("the bag cannot be read", where=str(bag), why=str(error).partition("\n")[0],
                          fix="give the directory that `ros2 bag record` wrote") from error
    with_types = {c.topic: c.msgtype for c in reader.connections}
    try:
        for topic, (names, kind) in wanted.items():
            if names and with_types.get(topic) != kind:
                found = f"it has it as {with_types[topic]}" if topic in with_types else (
                    "it has " + (", ".join(sorted(with_types)) or "no topic"))
                raise ConfigError(f"the bag has no {topic} of {kind}", where=str(bag), why=found,
                                  fix="correct the map, or record that topic")
        chosen = [c for c in reader.connections if c.topic in wanted]
        for connection, at, data in reader.messages(chosen):
            yield at, wanted[connection.topic][0], reader.deserialize(data, connection.msgtype)
    finally:
        reader.close()


@dataclass
class Played:
    """published: [(time, what was)]. skipped_s: gaps of the bag's times beyond LONGEST_GAP_S, in which nothing was."""

    published: list[tuple[int, Command]] = field(default_factory=list)
    skipped_s: float = 0.0


def rehearse(controller: Controller, messages: Iterator[tuple[int, tuple[str, ...], Any]]) -> Played:
    assert controller.topics.actions is not None
    period, played, due = round(SECOND / controller.topics.actions.rate_hz), Played(), None
    for at, names, message in messages:
        due = at if due is None else due
        until = due + LONGEST_GAP_S * SECOND
        while due <= min(at, until):
            command = controller.tick(due, due)
            if command is not None:
                played.published.append((due, command))
            while controller.info().busy:
                time.sleep(1e-4)
            due += period
        if due <= at:
            played.skipped_s += (at - due) / SECOND
            due = at
        if not names:
            controller.instruct_message(message)
        for name in names:
            controller.message(name, message, at)
    return played


def lines(controller: Controller, played: Played) -> Iterator[str]:
    """What is printed, in 80 columns."""
    published = played.published
    rows = [("input", "received", "used", "superseded", "refused", "waiting")]
    for name, account in controller.accounts().items():
        rows.append((name, *map(str, (account.received, account.used, account.superseded, account.refused.total(),
                                      account.waiting))))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
    for name, account in controller.accounts().items():
        for why, count in sorted(account.refused.items()):
            yield f"refused  {name}: {count} {why}; the last: {account.said[why].partition(chr(10))[0]}"
    by_status = Counter(command.status for _, command in published)
    yield "actions  " + (", ".join(f"{count} {status}" for status, count in sorted(by_status.items())) or "none")
    if published:
        seconds = (published[-1][0] - published[0][0]) / SECOND
        ages = sorted(at - c.observation_ns for at, c in published if c.status == "OK")
        yield (f"         over {seconds:.1f} s; made of observations {ages[0] / 1e6:.0f} to {ages[-1] / 1e6:.0f} ms old"
               if ages else f"         over {seconds:.1f} s")
    if played.skipped_s:
        yield f"gaps     {played.skipped_s:.0f} s without messages were skipped, but for {LONGEST_GAP_S} s of each"
    task = controller.tasks.current
    if task is not None and task.backbone is not None:
        yield f'router   task {task.number}, "{printable(task.instruction)}": {task.backbone}'
    if controller.trouble:
        yield controller.trouble


def write_actions(bag: Path, topics: TopicMap, published: list[tuple[int, Command]]) -> None:
    """As Float64MultiArray, whatever the node publishes. Raises ConfigError."""
    from rosbags.rosbag2 import Writer, WriterError
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    layout = store.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    kind = "std_msgs/msg/Float64MultiArray"
    assert topics.actions is not None
    try:
        with Writer(bag, version=8) as writer:
            connection = writer.add_connection(topics.actions.topic, kind, typestore=store)
            for at, command in published:
                message = store.types[kind](layout=layout, data=command.action.astype("<f8"))
                writer.write(connection, at, store.serialize_cdr(message, kind))
    except (WriterError, OSError) as error:
        raise ConfigError("the bag cannot be written", where=str(bag), why=str(error).partition("\n")[0],
                          fix="name a directory that does not exist yet") from error


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vlacompile_ros.rehearse", description=(__doc__ or "").partition(
        "\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("topics", type=Path, help="the YAML file that maps topics to inputs")
    parser.add_argument("bag", type=Path, help="the directory that `ros2 bag record` wrote")
    parser.add_argument("--actions", type=Path, metavar="DIR", help="write what was published, as a bag")
    parser.add_argument("--native-code", action="store_true", help="as of vlart-serve")
    parser.add_argument("--uncalibrated", action="store_true", help="as of vlart-serve")
    args = parser.parse_args(arguments)
    controller = None
    try:
        located = read_yaml(args.topics)
        topics = topic_map(located)
        controller = Controller(args.bundle, topics, located.where, native_code=args.native_code,
                                uncalibrated=args.uncalibrated)
        played = rehearse(controller, recorded(args.bag, topics))
        if args.actions is not None:
            write_actions(args.actions, topics, played.published)
        print("\n".join(lines(controller, played)))
        if not played.published:
            raise ConfigError("no action was published", where=str(args.bag), fix="the lines above say what became of "
                              "the messages of each input; correct the topic map, or record another bag",
                              why="no whole observation was found in it, or the policy refused every one")
    except VlaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        if controller is not None:
            controller.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
