"""Random sequences of writes, steps, refused and late steps and ends of episodes, of a policy that carries values from
step to step: a replay gives the same bits."""

from __future__ import annotations

import random

import vlacompile as vc
from tests.runtime.test_carried import bundle, play
from tests.samples.carrying import Reference
from vlart.recording.log import Log
from vlart.recording.replayed import replay

__all__ = ["bundle"]  # a fixture
SEQUENCES = 40


def test_random_sequences_to_the_bit(bundle, tmp_path):
    rng = random.Random(1)
    with vc.Recorder(tmp_path / "a.vlog", track_mib=16) as recorder, vc.Session(bundle.path, threads=1,
                                                                                record=recorder) as session:
        for _ in range(SEQUENCES):
            play(session, rng, Reference())
    log = Log(tmp_path / "a.vlog")
    kinds = {e.kind for e in log}
    statuses = {int(e.fields["status"]) for e in log if e.kind == "step"}
    assert {"source", "step", "reset", "invalidate", "keyframe"} <= kinds and len(statuses) >= 2
    found = replay(log, bundle.path, threads=1)
    assert found.parted is None and not found.skipped and found.chunks > SEQUENCES, found
