"""Bags of ROS 2 as calibration sets: read by the node's map, the same from every container, and faults told."""

from __future__ import annotations

import shutil

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
    assert told["messages"][bags.STATE] == "40 messages, 40 used"
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
    other.write_text(bags.MAP.replace("joints: [", "joints: [elbow_9, ").replace(f", {bags.JOINTS[-1]}]", "]"))
    with pytest.raises(CalibrationError, match="no whole observation") as unfit:  # as the node, which passes over them
        open_bag(written["sqlite"], other, INPUTS)
    assert f"{bags.STATE}: 40 messages, 0 used, 40 unfit" in unfit.value.why
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


# What anybody may have written

def refusal(path, map_file) -> CalibrationError | None:
    """None: it was read. Anything but a refusal of four lines is an error of the test."""
    try:
        bag = open_bag(path, map_file, INPUTS)
        bag.contents(bag.spread(3))
    except CalibrationError as error:
        assert error.what and error.where and error.why and error.fix and str(error).count("\n") == 3
        return error
    return None


def test_damaged_bags_are_read_or_refused(written, tmp_path, capfd):
    """Cut anywhere, or with bytes changed anywhere: of the file, of the database, and of what says what is in them."""
    rng, refused = np.random.default_rng(0), 0
    for container, of in (("file", None), ("mcap", "*.mcap"), ("sqlite", "*.db3"), ("sqlite", "metadata.yaml")):
        source = written[container]
        path = tmp_path / (container + (of or "")[2:4]) if of else tmp_path / "run.mcap"
        if of:
            shutil.copytree(source, path)
        inside = path if of is None else next(path.glob(of))
        whole = source.read_bytes() if of is None else inside.read_bytes()
        for number in range(25):
            data = np.frombuffer(whole, np.uint8).copy()
            data[rng.integers(0, data.size, 6)] = rng.integers(0, 256, 6)
            left = data.tobytes() if number % 5 else whole[:int(rng.integers(0, len(whole)))]
            inside.write_bytes(left)
            refused += refusal(path, written["map"]) is not None
    assert refused > 40
    for small in (0, 1, 8, 20):
        (tmp_path / "small.mcap").write_bytes(written["file"].read_bytes()[:small])
        assert refusal(tmp_path / "small.mcap", written["map"]) is not None
    assert capfd.readouterr() == ("", "")  # nor does a library print


def test_a_changed_byte_of_a_chunk_is_no_smaller_bag(written, tmp_path):
    """Its checksum is looked at: or messages would be missing without a word."""
    from mcap.reader import make_reader
    from mcap.writer import CompressionType, Writer

    with written["file"].open("rb") as file, (tmp_path / "a.mcap").open("wb") as out:
        writer, channels = Writer(out, compression=CompressionType.NONE), {}
        writer.start()
        for schema, channel, message in make_reader(file).iter_messages():
            if channel.topic not in channels:
                kind = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.topic] = writer.register_channel(channel.topic, channel.message_encoding, kind)
            writer.add_message(channels[channel.topic], message.log_time, message.data, message.publish_time)
        writer.finish()
    assert refusal(tmp_path / "a.mcap", written["map"]) is None
    data = bytearray((tmp_path / "a.mcap").read_bytes())
    at = data.index(np.ascontiguousarray(bags.frames(40)[7][1][..., ::-1]).tobytes())
    data[at] ^= 0xFF  # of a picture
    (tmp_path / "a.mcap").write_bytes(data)
    found = refusal(tmp_path / "a.mcap", written["map"])
    assert found is not None and "CRC" in found.why.upper()


def write_mcap_of(path, encoding: str, schema: str, body: bytes, topics=("/camera", "/joints"), count: int = 3):
    from mcap.writer import Writer

    with path.open("wb") as out:
        writer = Writer(out)
        writer.start()
        kind = writer.register_schema("sensor_msgs/msg/Image", schema, b"uint8 x")
        for topic in topics:
            channel = writer.register_channel(topic, encoding, kind)
            for k in range(count):
                writer.add_message(channel, bags.BEGIN_NS + k, body, bags.BEGIN_NS + k)
        writer.finish()
    return path


@pytest.mark.parametrize("what, encoding, schema, body, more", [
    ("holds no messages of ROS 2", "json", "jsonschema", b"{}", {}),
    ("cannot be read", "cdr", "ros2msg", b"", {}),
    ("cannot be read", "cdr", "jsonschema", b"1234", {}),
    ("no message of /camera", "cdr", "ros2msg", b"", {"count": 0}),
    ("has no topics", "cdr", "ros2msg", b"", {"topics": ()}),
    ("has no topic /camera", "cdr", "ros2msg", b"", {"topics": ("/cam\x1b[31m\nera", "/joints")})])
def test_bags_of_something_else(written, tmp_path, what, encoding, schema, body, more):
    found = refusal(write_mcap_of(tmp_path / "a.mcap", encoding, schema, body, **more), written["map"])
    assert found is not None and what in found.what and "\x1b" not in str(found)


def test_an_instruction_of_another_type_is_refused(written, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(bags.MAP.replace("topic: /instruction", "topic: /extra"))
    found = refusal(bags.write_rosbag2(tmp_path / "bag", extra="/extra"), other)
    assert found is not None and "/extra is sensor_msgs/msg/JointState" in found.what and "std_msgs" in found.why


def test_times_in_any_order_are_read(written, tmp_path):
    """A clock that goes back and forward while a bag is recorded: what lies on both sides of it is kept apart."""
    path = bags.write_rosbag2(tmp_path / "bag", jump_ns=(0, -30 * 10**9, 3600 * 10**9))
    found = open_bag(path, written["map"], INPUTS)
    assert 30 <= len(found.observations) <= 40
    for place, content in found.contents(found.spread(20)).items():
        joints = next(j for _, image, j in bags.frames(40) if np.array_equal(content[bags.CAMERA][0], image))
        assert np.allclose(content[bags.STATE][0], joints.astype(np.float32)), place
