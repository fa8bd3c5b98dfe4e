"""Bags of ROS 2 as calibration sets: read by the node's map, the same from every container, and faults told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples import bags
from vlacompile.frontends.bags import is_bag, open_bag
from vlart.errors import CalibrationError, ConfigError
from vlart.serve.observations import Input

pytest.importorskip("rosbags", reason="pip install 'vlacompile[bags]'")
pytest.importorskip("mcap_ros2", reason="pip install 'vlacompile[bags]'")

INPUTS = {bags.CAMERA: Input(bags.CAMERA, "observation", "u8", (1, *bags.SIDE, 3)),
          bags.STATE: Input(bags.STATE, "observation", "f32", (1, 3))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{container: path}, and the map."""
    folder = tmp_path_factory.mktemp("bags")
    (folder / "robot.yaml").write_text(bags.MAP)
    return {"sqlite": bags.write_rosbag2(folder / "sqlite"),
            "mcap": bags.write_rosbag2(folder / "mcap", storage="mcap"),
            "file": bags.write_mcap(folder / "run.mcap"), "map": folder / "robot.yaml"}


@pytest.mark.parametrize("container", ["sqlite", "mcap", "file"])
def test_every_container_gives_the_same(written, container):
    path = written[container]
    assert is_bag(path) and not is_bag(written["map"])
    bag = open_bag(path, written["map"], INPUTS)
    assert len(bag.observations) == 40 and [o.text for o in bag.observations] == ["wait"] * 20 + ["lift it"] * 20
    places = bag.spread(5)
    assert places == [4, 12, 20, 28, 36]
    found, wanted = bag.contents(places), bags.frames(40)
    for place in places:
        assert np.array_equal(found[place][bags.CAMERA][0], wanted[place][1])
        assert np.allclose(found[place][bags.STATE][0], wanted[place][2].astype(np.float32))


class Robot(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3 + 6 * 8 * 3, 8)

    def forward(self, **inputs):
        seen = inputs[bags.CAMERA].float().flatten(1) / 255
        return {"action": self.head(torch.cat([seen, inputs[bags.STATE]], 1)).reshape(1, 4, 2)}


def robot() -> vc.Policy:
    return vc.Policy("robot", Robot().eval(), {n: vc.Source("observation") for n in (bags.CAMERA, bags.STATE)},
                     {bags.CAMERA: torch.zeros(1, *bags.SIDE, 3, dtype=torch.uint8), bags.STATE: torch.zeros(1, 3)})


def test_a_build_is_calibrated_on_it(written, tmp_path):
    bundle = vc.build(robot(), out=tmp_path / "a.vlab", calibrate=written["file"], topics=written["map"])
    told = bundle.manifest["provenance"]["calibrated_on"]
    assert told["version"] == "MCAP" and told["frames"] == 40 and told["taken"] == 32
    again = vc.build(robot(), out=tmp_path / "b.vlab", calibrate=written["sqlite"], topics=written["map"])
    assert again.manifest["provenance"]["calibrated_on"]["sha256"] == told["sha256"]


def test_what_does_not_fit_is_told(written, tmp_path):
    with pytest.raises(CalibrationError, match="no topic /joints") as missing:
        open_bag(bags.write_rosbag2(tmp_path / "half", joints=False), written["map"], INPUTS)
    assert missing.value.why and missing.value.fix
    other = tmp_path / "other.yaml"
    other.write_text(bags.MAP.replace("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"))
    with pytest.raises(CalibrationError, match="/camera is sensor_msgs/msg/Image"):
        open_bag(written["sqlite"], other, INPUTS)
    other.write_text(bags.MAP.replace("within_ms: 20", "within_ms: 1"))
    with pytest.raises(CalibrationError, match="no whole observation") as apart:
        open_bag(written["sqlite"], other, INPUTS)
    assert "incomplete" in apart.value.why and "within_ms" in apart.value.fix
    wide = INPUTS | {bags.CAMERA: Input(bags.CAMERA, "observation", "u8", (1, 9, 9, 3))}
    bag = open_bag(written["sqlite"], written["map"], wide)
    with pytest.raises(CalibrationError, match="frame of 8 x 6"):
        bag.contents([0])
    (tmp_path / "cut.mcap").write_bytes(written["file"].read_bytes()[:-200])
    with pytest.raises(CalibrationError):
        open_bag(tmp_path / "cut.mcap", written["map"], INPUTS)
    with pytest.raises(ConfigError, match="no topic"):
        open_bag(written["sqlite"], written["map"], INPUTS | {"extra": INPUTS[bags.STATE]})


def test_a_bag_needs_a_map_and_a_dataset_none(written, tmp_path, cli):
    with pytest.raises(ConfigError, match="which topic is which input"):
        vc.build(robot(), out=tmp_path / "a.vlab", calibrate=written["file"])
    code, _, err = cli("build", "tests.samples.cli_policies:tiny", "--calibrate", str(written["file"]))
    assert code == 3 and "--topics" in err
    code, _, err = cli("build", "tests.samples.cli_policies:tiny", "--calibrate", str(tmp_path), "--topics",
                       str(written["map"]))
    assert code == 3 and "belongs to a bag" in err
