"""How old the observation of a robot's action is, where robots send at their cameras' rate and do not wait.

    python -m benchmarks.newest build/libero_goal/light.vlab --member light
    python -m benchmarks.newest ... [--hz 10] [--seconds 15] [--before CHECKOUT] [--record]

1, 4 and 16 robots send an observation every 1/hz s over openpi's protocol, whether or not the last one was answered. An
observation is named by the time at which it was sent; its age is counted when its answer has come. --before: a checkout
of an earlier version, whose server is measured beside this one's; it answers in turn and names no observations.
--record writes profiles/host/newest.json.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serve import CLIENTS, at, recorded
from vlacompile.profile.machine import describe
from vlart.bundle.directory import read_bundle
from vlart.files.atomic import write_whole
from vlart.serve.messages import pack, unpack

RECORD = Path("profiles/host/newest.json")
DRAIN_S = 5.0  # for answers that are under way at the end


@contextlib.contextmanager
def server(bundle: Path, options: list[str], checkout: Path | None) -> Iterator[str]:
    """The address of a server on a free port."""
    where = {} if checkout is None else {"PYTHONPATH": str(checkout)}
    process = subprocess.Popen([sys.executable, "-m", "vlacompile.cli.main", "serve", bundle.resolve(), "--port", "0",
                                "--json", "--threads", "1", "--clients", "64", *options], stdout=subprocess.PIPE,
                               text=True, cwd=checkout, env={**os.environ, **where})
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start (exit code {process.wait()})")
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


async def robot(url: str, messages: list[dict], first: int, hz: float, seconds: float, named: bool) -> dict:
    """One robot: {"ages": [s], "superseded", "refused", "unanswered", "sent"}. named: answers name the observation that
    they are of; otherwise they come in the order of the observations."""
    from websockets.asyncio.client import connect

    found, sent = {"ages": [], "superseded": 0, "refused": 0, "sent": 0}, collections.deque()
    async with connect(url, compression=None, max_size=None) as socket:
        await socket.recv()

        async def listen() -> None:
            while True:
                answer = await socket.recv()
                of = None if named else sent.popleft()
                if isinstance(answer, bytes):
                    found["ages"].append(time.monotonic() - (unpack(answer)["observation_id"] if named else of))
                else:
                    found["superseded" if "superseded" in answer else "refused"] += 1

        listening, began = asyncio.create_task(listen()), time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            message = messages[(first + found["sent"]) % len(messages)]
            sent.append(now)
            await socket.send(pack({**message, "observation_id": now} if named else message))
            found["sent"] += 1
            await asyncio.sleep(max(0.0, began + found["sent"] / hz - time.monotonic()))
        await asyncio.sleep(DRAIN_S)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return found | {"unanswered": found["sent"] - len(found["ages"]) - found["superseded"] - found["refused"]}


def load(url: str, count: int, messages: list[dict], hz: float, seconds: float, named: bool) -> dict:
    async def every() -> list[dict]:
        return await asyncio.gather(*(robot(url, messages, i * len(messages) // count, hz, seconds, named)
                                      for i in range(count)))

    rows = asyncio.run(every())
    ages = sorted(age for r in rows for age in r["ages"])
    each = [len(r["ages"]) / seconds for r in rows]
    return {"robots": count, "sent_per_s": sum(r["sent"] for r in rows) / seconds, "answers_per_s": sum(each),
            "least_per_s": min(each), "most_per_s": max(each), "age_ms": {
                "median": 1e3 * statistics.median(ages), "p95": 1e3 * at(ages, 0.95), "max": 1e3 * ages[-1]},
            **{k: sum(r[k] for r in rows) for k in ("superseded", "refused", "unanswered")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--member", choices=["light", "heavy"], required=True)
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD}")
    arguments = parser.parse_args()
    bundle, rows = read_bundle(arguments.bundle), []
    messages, _ = recorded(bundle, arguments.member)
    ways = [("newest wins, one session", [], None), ("newest wins, a session per robot", ["--sessions", "N"], None)]
    if arguments.before:
        ways.insert(0, ("one queue for all, of 8", [], arguments.before.resolve()))
    for way, options, checkout in ways:
        for count in CLIENTS:
            with server(bundle.path, [str(count) if o == "N" else o for o in options], checkout) as url:
                found = load(url, count, messages, arguments.hz, arguments.seconds, named=checkout is None)
                rows.append({"server": way} | found)
                print(json.dumps(rows[-1]), flush=True)
    if arguments.record:
        document = {"policy": bundle.plan.name, "bundle": bundle.hash, "hz": arguments.hz, "seconds": arguments.seconds,
                    "machine": describe("websockets", "msgpack"), "load": rows}
        write_whole(RECORD, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
