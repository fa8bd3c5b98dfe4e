"""LeRobot 0.6.1's own dataset class reads an export, with windows over time as a training has them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.samples import recorded_robot as robot
from vlacompile.export.to_lerobot import export_lerobot
from vlart.recording.timeline import episodes

LEROBOT = Path(sys.prefix) / "environments" / "lerobot-own"  # LeRobot 0.6.1 as it installs itself: make newcomer
PROGRAM = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
found = LeRobotDataset("local/run", root=sys.argv[1], delta_timestamps={"action": [0, 1 / 30]})
row = found[9]
print("FOUND " + json.dumps({
    "length": len(found), "episodes": found.num_episodes, "fps": found.fps, "task": row["task"],
    "action": row["action"].tolist(), "state": row["observation.state"].tolist(),
    "pixels": (row[sys.argv[2]] * 255).round().int().permute(1, 2, 0).tolist(), "fresh": bool(row["observation.fresh"]),
    "mean": found.meta.stats["action"]["mean"].tolist()}))
"""


@pytest.mark.skipif(not LEROBOT.is_dir(), reason="needs LeRobot 0.6.1 in .venv/environments/lerobot-own")
def test_lerobot_reads_it(log, tmp_path):
    pytest.importorskip("pyarrow", reason="pip install 'vlacompile[recordings]'")
    export_lerobot(log, tmp_path / "set", fps=30)
    done = subprocess.run([LEROBOT / "bin" / "python", "-W", "ignore", "-c", PROGRAM, tmp_path / "set", robot.CAMERA],
                          capture_output=True, text=True, check=True, env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path),
                                                                           "HF_HOME": str(tmp_path)})
    found = json.loads(done.stdout[done.stdout.index("FOUND ") + 6:])
    lines = episodes(log)
    second, actions = lines[1], np.concatenate([[e.action for e in line.executed] for line in lines])
    assert (found["length"], found["episodes"], found["fps"], found["task"]) == (24, 3, 30, "")
    assert np.array_equal(np.float32(found["action"]), actions[9:11]) and found["fresh"] is False
    assert np.array_equal(np.float32(found["state"]), second.observed[0].sources[robot.STATE][0])
    assert np.array_equal(found["pixels"], second.observed[0].sources[robot.CAMERA][0])
    assert np.allclose(found["mean"], actions.mean(0), atol=1e-6)
