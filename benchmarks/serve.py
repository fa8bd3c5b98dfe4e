"""Latency and memory of `vlacompile serve` on the loopback interface, with 1, 4 and 16 clients: on one session, and
on one per client.

    python -m benchmarks.serve build/libero_goal/light.vlab --member light
    python -m benchmarks.serve ... --record          (writes profiles/host/serve.json)
    python -m benchmarks.serve ... --member light --protocol lerobot --record     (profiles/host/serve-lerobot.json)

The server is a process of its own, started by the command line; a client is a thread here with openpi's own client and
its own connection, sending requests back to back: the highest load of that many clients. Every client replays the
recorded LIBERO-Goal episodes (--member: the instruction as text), a frames file, or the bundle's golden frames; each
action chunk is compared with that of a session in this process. "in process" is that session's own step, written and
read in the same way. LeRobot's own client is a control loop with an environment of its own: for its protocol, the
clients here make the four calls with the same messages (tests/serve/lerobot_messages.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np

RECORDS = {"openpi": Path("profiles/host/serve.json"), "lerobot": Path("profiles/host/serve-lerobot.json")}
PART_BYTES = 2 << 20  # size of the parts of an observation, as streamed by LeRobot's client
READING = threading.Lock()  # serialises reading of messages that name LeRobot's classes
CLIENTS = (1, 4, 16)


class Server:
    """Context manager: `vlacompile serve` on a free port."""

    def __init__(self, bundle: Path, threads: int, sessions: int, protocol: str = "openpi"):
        # gRPC does not report disconnected clients: those of earlier loads still count
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vlacompile.cli.main", "serve", bundle, "--protocol", protocol, "--port", "0",
             "--json", "--threads", str(threads), "--sessions", str(sessions),
             "--clients", str(4 * max(CLIENTS))],
            stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start (exit code {self.process.wait()})")
        self.url = json.loads(line)["url"]
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)

    def memory_bytes(self) -> int:
        from vlart.serve.metrics import resident_bytes

        return resident_bytes(self.process.pid)


def recorded(bundle, member: str) -> tuple[list[dict], list[dict]]:
    """(messages of openpi's client, inputs of a session) for every recorded observation."""
    from examples.libero_goal import recordings
    from examples.libero_goal.policy import inputs_of
    from vlart.serve.tokenized_texts import own_instructions

    read = own_instructions(bundle)
    if read is None:
        raise SystemExit(f"{bundle.path} has no tokenizer: build it again")
    messages, writes = [], []
    for row in recordings.load():
        words, inputs = read(row.instruction), {n: t.numpy() for n, t in inputs_of(member, row).items()}
        messages.append({"prompt": row.instruction, **{n: a for n, a in inputs.items() if n not in words}})
        writes.append(inputs | words)
    return messages, writes


def references(bundle: Path, frames: list[dict], threads: int) -> tuple[list[np.ndarray], list[float]]:
    """The chunk of every frame and the latency of every step in ms, by a session in this process."""
    import vlacompile as vc

    chunks, times = [], []
    with vc.Session(bundle, threads=threads) as session:
        name = session.plan.values[session.plan.action.value].name
        for turn in range(2):  # the first turn is a warm-up
            for frame in frames:
                begin = time.perf_counter()
                for source, array in frame.items():
                    session.write(source, array)
                session.step()
                chunk = session.read(name)[0]
                if turn:
                    chunks.append(chunk)
                    times.append((time.perf_counter() - begin) * 1e3)
    return chunks, times


def client(url: str, messages: list[dict], want: list[np.ndarray], seconds: float, begin: threading.Barrier,
           first: int, out: dict) -> None:
    """first: frame to start with, so that clients send different ones. out: {"ms": [...], "infer_ms": [...],
    "wrong": n}."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    policy = WebsocketClientPolicy(url)
    begin.wait(30)
    end, i, rows = time.perf_counter() + seconds, first, []
    while time.perf_counter() < end:
        start = time.perf_counter()
        answer = policy.infer(messages[i % len(messages)])
        rows.append(((time.perf_counter() - start) * 1e3, answer["server_timing"]["infer_ms"],
                     not np.array_equal(answer["actions"], want[i % len(want)])))
        i += 1
    policy._ws.close()  # the client has no close()
    out |= {"ms": [r[0] for r in rows], "infer_ms": [r[1] for r in rows], "wrong": sum(r[2] for r in rows)}


def lerobot_messages(messages: list[dict]) -> tuple[list[bytes], object]:
    """(pickled observations in LeRobot's format, the policy set-up sent before the first)."""
    from examples.libero_goal import lerobot_robot
    from examples.libero_goal.policy import IMAGES, STATE
    from tests.serve.lerobot_messages import RemotePolicyConfig, TimedObservation, pickled

    side, joints = lerobot_robot.SIZE, lerobot_robot.JOINTS
    features = {"observation.state": {"dtype": "float32", "shape": (len(joints),), "names": list(joints)}}
    features |= {source: {"dtype": "image", "shape": (side, side, 3), "names": list("hwc")}
                 for source in IMAGES.values()}
    observations = [{**dict(zip(joints, map(float, m[STATE].ravel()), strict=True)), "task": m["prompt"],
                     **{c: m[source].reshape(side, side, 3) for c, source in IMAGES.items()}} for m in messages]
    return ([pickled(TimedObservation(100.0, i, o, True)) for i, o in enumerate(observations)],
            RemotePolicyConfig("act", "the served bundle", features, lerobot_robot.CHUNK))


def lerobot_client(url: str, messages: tuple[list[bytes], object], want: list[np.ndarray], seconds: float,
                   begin: threading.Barrier, first: int, out: dict) -> None:
    """As `client`. Answers are parsed after the load: parsing takes a lock, and would be done by the robot."""
    import grpc

    from tests.serve.lerobot_messages import Robot

    (observations, setup), rows, answers = messages, [], []
    with grpc.insecure_channel(url, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        robot = Robot(channel, setup)
        with READING:
            robot.ready()
        begin.wait(30)
        end, i = time.perf_counter() + seconds, first
        while time.perf_counter() < end:
            start = time.perf_counter()
            robot.send(observations[i % len(observations)], part=PART_BYTES)
            while not (answer := robot.answer()):
                pass
            rows.append((time.perf_counter() - start) * 1e3)
            answers.append((i % len(want), answer))
            i += 1
    out |= {"ms": rows, "infer_ms": [], "wrong": sum(not same_actions(a, want[k]) for k, a in answers)}


def same_actions(answer: bytes, want: np.ndarray) -> bool:
    from tests.serve.lerobot_messages import unpickled

    with READING:
        return np.array_equal(np.stack([np.asarray(a.action) for a in unpickled(answer)]), want)


def load(server: Server, count: int, messages, want: list[np.ndarray], seconds: float, drive=client) -> dict:
    """messages: sent by `drive`."""
    results, begin = [{} for _ in range(count)], threading.Barrier(count)
    firsts = [i * len(want) // count for i in range(count)]
    threads = [threading.Thread(target=drive, args=(server.url, messages, want, seconds, begin, first, result))
               for first, result in zip(firsts, results, strict=True)]
    for t in threads:
        t.start()
    time.sleep(seconds / 2)
    memory = server.memory_bytes()
    for t in threads:
        t.join(seconds + 120)
    times = sorted(x for r in results for x in r.get("ms", ()))
    inside = [x for r in results for x in r.get("infer_ms", ())]
    if not times or any("ms" not in r or not r["ms"] for r in results):
        raise SystemExit("a client got no answer")
    return {"clients": count, "requests": len(times), "requests_per_s": len(times) / seconds,
            "ms": {"median": statistics.median(times), "p95": at(times, 0.95), "p99": at(times, 0.99),
                   "max": times[-1]},
            "infer_ms": {"median": statistics.median(inside)} if inside else None,
            "server_memory_bytes": memory, "wrong": sum(r["wrong"] for r in results)}


def at(ordered: list[float], share: float) -> float:
    """The quantile: the smallest value that this share does not exceed."""
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a NAME.vlab whose chunks are consumed as a queue")
    parser.add_argument("--frames", type=Path, help="frames to replay (default: the bundle's golden frames)")
    parser.add_argument("--member", choices=["light", "heavy"], help="replay the recorded LIBERO-Goal episodes")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds per number of clients (default: 20)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the inference engine (default: 1)")
    parser.add_argument("--protocol", choices=list(RECORDS), default="openpi", help="lerobot: with --member")
    parser.add_argument("--record", action="store_true", help=f"write {' or '.join(map(str, RECORDS.values()))}")
    arguments = parser.parse_args()

    from vlacompile.profile.machine import describe
    from vlart.bundle.directory import GOLDEN_FILE, read_bundle
    from vlart.serve.messages import pack
    from vlart.verify.frames import read_frames

    bundle = read_bundle(arguments.bundle)
    if arguments.member:
        messages, writes = recorded(bundle, arguments.member)
    else:
        messages = writes = [f.writes for f in read_frames(arguments.frames or bundle.path / GOLDEN_FILE)]
    want, alone = references(bundle.path, writes, arguments.threads)
    rows, record, drive, unused = [], RECORDS[arguments.protocol], client, 0
    frames, message_bytes = len(messages), len(pack(messages[0]))
    if arguments.protocol == "lerobot":
        if not arguments.member:
            raise SystemExit("--protocol lerobot needs --member: its observations name cameras and joints")
        messages, drive = lerobot_messages(messages), lerobot_client
        message_bytes = len(messages[0][0])
    for sessions, counts in ((1, CLIENTS), (max(CLIENTS), CLIENTS[1:])):
        with Server(arguments.bundle, arguments.threads, sessions, arguments.protocol) as server:
            unused = server.memory_bytes() if sessions == 1 else unused
            load(server, 1, messages, want, min(2.0, arguments.seconds), drive)  # warm-up
            for count in counts:
                rows.append(load(server, count, messages, want, arguments.seconds, drive) | {"sessions": sessions})
                print(json.dumps(rows[-1]), flush=True)
    packages = ("grpcio",) if arguments.protocol == "lerobot" else ("websockets", "msgpack", "openpi-client")
    document = {"policy": bundle.plan.name, "bundle": bundle.hash, "frames": frames, "threads": arguments.threads,
                "protocol": arguments.protocol, "message_bytes": message_bytes, "seconds": arguments.seconds,
                "machine": describe(*packages),
                "in_process_ms": {"median": statistics.median(alone), "p95": at(sorted(alone), 0.95),
                                  "p99": at(sorted(alone), 0.99), "max": max(alone)},
                "server_memory_bytes_before": unused, "load": rows}
    print(json.dumps({k: v for k, v in document.items() if k not in ("load", "machine", "bundle")}))
    if wrong := sum(r["wrong"] for r in rows):
        raise SystemExit(f"{wrong} answers differ from the session in this process")
    if arguments.record:
        record.write_text(json.dumps(document, indent=1) + "\n")
        print(f"wrote {record}")


if __name__ == "__main__":
    main()
