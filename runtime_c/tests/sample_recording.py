"""A recording written record by record, for the tests of its reader: of the policy `Reactive`, an event of every kind,
in two blocks of three."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from sample_bundles import NONE, Reactive

from vlart import vocabulary
from vlart.bundle.format import layout
from vlart.bundle.format import records_recording as records

BLOCK, RECORDING = 4096, 0x1234567890ABCDEF
ROOM = BLOCK - records.BLOCK.size


def event(kind: str, payload: bytes, sequence: int, role: str = "session", track: int = 0) -> bytes:
    head = records.EVENT.pack(bytes=len(payload), kind=vocabulary.EVENT_KINDS[kind], track=track,
                              role=vocabulary.EVENT_ROLES[role], lane=0, sequence=sequence, time_ns=10**9 + sequence)
    return head + payload + b"\0" * (-len(payload) % 8)


def events(policy: Reactive) -> list[bytes]:
    found: list[bytes] = []

    def add(kind: str, payload: bytes, role: str = "session", track: int = 0) -> None:
        found.append(event(kind, payload, len(found) + 1, role, track))

    note = records.NOTE_EVENT.pack
    actions = np.arange(policy.H * policy.dim, dtype="<f4")
    add("keyframe", note(index=2))
    add("text", note(index=0) + b"put it there")
    for seed in range(8):
        for source, array in enumerate(policy.inputs(seed).values()):
            data = np.ascontiguousarray(array).tobytes()
            add("source", records.SOURCE_EVENT.pack(source=source, flags=1, crc32=zlib.crc32(data), bytes=len(data),
                                                    version=seed + 1, observation=seed) + data)
        rows = b"".join(records.STAGE_TIME.pack(runs=seed + 1, ns=5000, iterations=1, ran=1) for _ in range(4))
        add("step", records.STEP_EVENT.pack(status=0, stop_stage=NONE, stage_count=4, chunk_count=actions.size,
                                            chunk=seed + 1, observation=seed, ns=20000, lanes=(0,) * 8)
            + rows + actions.tobytes())
        add("pop", records.POP_EVENT.pack(status=0, rows=1, dim=policy.dim, asked=1, chunk=seed + 1)
            + actions[: policy.dim].tobytes())
    for kind in ("select", "reset", "invalidate", "refused", "handover"):
        add(kind, note(status=0))
    add("observe", note(status=17, index=1))
    for kind in ("request", "take", "result", "cancel"):
        add(kind, note(number=1), "control", 1)
    add("control", records.CONTROL_EVENT.pack(dim=policy.dim) + bytes(4 * policy.dim), "control", 1)
    add("decision", records.DECISION_EVENT.pack(sequence=1, backbone_count=2, cluster=NONE, alpha=(1.0,) * 4,
                                                beta=(1.0,) * 4, probability=(0.5,) * 4, cost_ms=(2.0,) * 4) + b"go",
        "router", 2)
    add("outcome", note(index=1, number=1), "router", 2)
    add("loss", records.LOSS_EVENT.pack(events=3, bytes=300, first=9, blocks=1, error=28), "writer", 64)
    add("clock", records.CLOCK_EVENT.pack(wall_ns=10**18, moved_ns=-(10**12), changes=2), "writer", 64)
    return found


def blocks(stream: list[bytes]) -> list[bytes]:
    """Of the events, cut where a block is full."""
    data, begins = b"".join(stream), np.cumsum([0, *map(len, stream)])[:-1]
    found = []
    for sequence, at in enumerate(range(0, len(data), ROOM)):
        piece = data[at: at + ROOM]
        inside = begins[(begins >= at) & (begins < at + ROOM)]
        first = int(inside[0]) - at if len(inside) else NONE
        block = records.BLOCK.pack(used=len(piece), recording=RECORDING, sequence=sequence, first=first)
        found.append(struct.pack("<I", zlib.crc32(block[4:] + piece)) + block[4:] + piece + b"\0" * (ROOM - len(piece)))
    return found


def recording_bytes() -> bytes:
    policy = Reactive(low=(-1,) * 3, high=(1,) * 3)
    plan = policy.bundle.plan_container().to_bytes()
    written = blocks(events(policy))
    head_bytes = -(-(records.LOG.size + len(plan)) // BLOCK) * BLOCK
    head = records.LOG.pack(magic=struct.unpack("<2I", layout.RECORDING_MAGIC), version_major=layout.RECORDING_MAJOR,
                            version_minor=layout.RECORDING_MINOR, head_bytes=head_bytes, plan_bytes=len(plan),
                            block_count=len(written) + 1, block_bytes=BLOCK, full=1, recording=RECORDING, wall_ns=1,
                            clock_ns=2, plan_crc32=zlib.crc32(plan))
    head = head[:-4] + struct.pack("<I", zlib.crc32(head[:-4])) + plan
    return head + b"\0" * (head_bytes - len(head)) + b"".join(written) + bytes(BLOCK)
