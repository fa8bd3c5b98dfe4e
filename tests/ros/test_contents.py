"""Messages as a policy's inputs: encodings, strides, byte order, joints by their names; and what is refused."""

from __future__ import annotations

import io
from types import SimpleNamespace as Fields

import numpy as np
import pytest
from PIL import Image

from tests.ros.messages import S, image, joints, stamped
from vlart.errors import ConfigError
from vlart.ros.contents import Reader, readers_of, stamp_ns, text_of
from vlart.ros.mapping import COMPRESSED, IMAGE, JOINTS, NUMBERS, Synchronise, Topic, TopicMap
from vlart.serve.observations import Input
from vlart.serve.refusal import Refusal

HEIGHT, WIDTH = 6, 8
FRAME = Input("image", "observation", "u8", (1, HEIGHT, WIDTH, 3))
DEPTH = Input("depth", "observation", "f32", (1, HEIGHT, WIDTH, 1))
STATE = Input("state", "observation", "f32", (1, 3))
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def read(message, wanted: Input = FRAME, of: str = IMAGE, **options) -> np.ndarray:
    return Reader(wanted.name, Topic("/topic", of, **options), wanted).read(message)


def refusal(message, wanted: Input = FRAME, of: str = IMAGE, **options) -> Refusal:
    with pytest.raises(Refusal) as refused:
        read(message, wanted, of, **options)
    assert "/topic" in refused.value.what and wanted.name in refused.value.where, refused.value
    return refused.value


def alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 9)], -1)


ENCODINGS = {
    "rgb8": PIXELS, "bgr8": PIXELS[..., ::-1], "rgba8": alpha(PIXELS), "bgra8": alpha(PIXELS[..., ::-1]),
    "rgb16": PIXELS.astype(np.uint16) * 257, "bgr16": PIXELS[..., ::-1].astype(np.uint16) * 257,
    "rgba16": alpha(PIXELS.astype(np.uint16) * 257), "bgra16": alpha(PIXELS[..., ::-1].astype(np.uint16) * 257),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 5])
def test_colours_of_every_encoding_come_out_as_red_green_blue(encoding, big, padding):
    packed = ENCODINGS[encoding]
    packed = packed.astype(packed.dtype.newbyteorder(">" if big else "<"))
    rows = packed.reshape(HEIGHT, -1).view(np.uint8)
    rows = np.concatenate([rows, np.full((HEIGHT, padding), 77, np.uint8)], 1)  # what a driver aligns rows by
    message = image(S, packed, encoding, is_bigendian=int(big), step=rows.shape[1], data=rows.tobytes())
    assert np.array_equal(read(message), PIXELS[None])


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16"])
def test_grey_is_each_colour(encoding):
    grey = PIXELS[..., :1]
    packed = grey.astype(np.uint16) * 257 if encoding == "mono16" else grey
    assert np.array_equal(read(image(S, packed, encoding)), np.repeat(grey, 3, -1)[None])


def test_channels_without_names_need_the_map():
    assert np.array_equal(read(image(S, PIXELS[..., ::-1], "8UC3"), channels="bgr"), PIXELS[None])
    assert np.array_equal(read(image(S, PIXELS, "8UC3"), channels="rgb"), PIXELS[None])
    assert "channels: rgb" in refusal(image(S, PIXELS, "8UC3")).fix


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_colours_of_a_camera_in_yuv(encoding):
    """Beside FFmpeg's, whose numbers are rounded otherwise."""
    av = pytest.importorskip("av", reason="pip install 'vlacompile[dataset]'")
    smooth = np.linspace(0, 255, 3 * HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 3)[:, :, [0, 2, 1]].astype(np.uint8)
    packed = av.VideoFrame.from_ndarray(smooth, format="rgb24").reformat(format="yuyv422")
    expected = packed.to_ndarray(format="rgb24").astype(int)
    brightness_first = packed.to_ndarray(format="yuyv422")
    swapped = brightness_first[..., ::-1]
    data, other = (brightness_first, swapped) if "yuy" in encoding[3:] or encoding == "yuyv" else (
        swapped, brightness_first)
    assert np.abs(read(image(S, data, encoding))[0] - expected).max() <= 4
    assert np.abs(read(image(S, other, encoding))[0] - expected).max() > 20  # the control: bytes of the other order


def test_colours_in_planes():
    """Grey, behind luma of 8 rows that are longer than the picture."""
    luma = np.full((HEIGHT, WIDTH + 8), 126, np.uint8)
    chroma = np.full((HEIGHT // 2, WIDTH + 8), 128, np.uint8)
    message = stamped(S, height=HEIGHT, width=WIDTH, encoding="nv21", is_bigendian=0, step=WIDTH + 8,
                      data=luma.tobytes() + chroma.tobytes())
    assert np.unique(read(message)).tolist() == [128]
    message.data = message.data[:-1]
    assert "step and the rows" in refusal(message).fix


def test_depth_keeps_its_numbers():
    metres = np.linspace(0.5, 4, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH, 1)
    for big in (False, True):
        packed = metres.astype(">f4" if big else "<f4")
        assert np.array_equal(read(image(S, packed, "32FC1", is_bigendian=int(big)), DEPTH), metres[None])
    millimetres = (metres * 1000).astype(np.uint16)
    assert np.array_equal(read(image(S, millimetres, "16UC1"), DEPTH), millimetres[None].astype(np.float32))
    metres[2, 3] = np.nan
    assert "NaN" in refusal(image(S, metres, "32FC1"), DEPTH).what


@pytest.mark.parametrize("data", [bytes, bytearray, memoryview, list, lambda b: np.frombuffer(b, np.uint8)])
def test_bytes_of_every_binding(data):
    message = image(S, PIXELS)
    message.data = data(message.data)
    assert np.array_equal(read(message), PIXELS[None])


def encoded(form: str, pixels: np.ndarray = PIXELS, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def test_compressed_images():
    message = stamped(S, format="png", data=encoded("PNG"))
    assert np.array_equal(read(message, of=COMPRESSED), PIXELS[None])
    message = stamped(S, format="rgb8; jpeg compressed bgr8", data=encoded("JPEG", quality=100, subsampling=0))
    assert np.abs(read(message, of=COMPRESSED)[0].astype(int) - PIXELS).max() < 8
    grey = stamped(S, format="mono8; png compressed", data=encoded("PNG", PIXELS[..., 0]))
    assert np.array_equal(read(grey, of=COMPRESSED), np.repeat(PIXELS[None, ..., :1], 3, -1))


WRONG_IMAGES = {
    "another size": (image(S, PIXELS[:4]), "resize: METHOD"),
    "less data": (image(S, PIXELS, data=PIXELS.tobytes()[:-1]), "step and the rows"),
    "more data": (image(S, PIXELS, data=PIXELS.tobytes() + b"0"), "step and the rows"),
    "rows that are too short": (image(S, PIXELS, step=3 * WIDTH - 1), "step and the rows"),
    "no rows": (image(S, PIXELS, height=0, data=b""), "step and the rows"),
    "a width beyond the data": (image(S, PIXELS, width=2 ** 31), "step and the rows"),
    "a Bayer pattern": (image(S, PIXELS, "bayer_rggb8"), "debayer"),
    "an unknown encoding": (image(S, PIXELS, "rgb9"), "image_proc"),
    "an encoding that is no text": (image(S, PIXELS, 7), "image_proc"),
    "data that are no bytes": (image(S, PIXELS, data=["a"]), "own message"),
    "numbers beyond bytes": (image(S, PIXELS, data=[256] * PIXELS.size), "own message"),
    "joints": (joints(S, a=1.0), "publish sensor_msgs/msg/Image"),
    "an odd width of yuv": (image(S, PIXELS[:, :7, :2], "yuyv"), "even size"),
}


@pytest.mark.parametrize("wrong", WRONG_IMAGES)
def test_an_image_that_does_not_fit_is_refused(wrong):
    message, fix = WRONG_IMAGES[wrong]
    assert fix in refusal(message).fix


@pytest.mark.parametrize("data, fix", [
    (encoded("PNG")[:-40], "whole JPEG or PNG"), (b"", "whole JPEG or PNG"),
    (b"\xff\xd8\xff" + b"\0" * 50, "whole JPEG"),
    (encoded("GIF"), "JPEG or PNG"), (encoded("PNG", np.zeros((HEIGHT, WIDTH), np.uint16)), "8 bits"),
    (encoded("PNG", PIXELS[:3]), "resize")])
def test_a_compressed_image_that_does_not_fit_is_refused(data, fix):
    assert fix in refusal(stamped(S, format="png", data=data), of=COMPRESSED).fix


def test_an_image_that_unpacks_to_too_much_is_refused_before():
    huge = encoded("PNG", np.zeros((8200, 8200), np.uint8))
    message = stamped(S, format="png", data=huge)
    assert len(huge) < 200_000 and "8200 x 8200" in refusal(message, of=COMPRESSED).what
    assert "8200 x 8200" in refusal(message, of=COMPRESSED, resize="bilinear").why
    assert "raw topic" in refusal(stamped(S, format="16UC1; compressedDepth", data=b"0"), of=COMPRESSED).fix


def test_frames_are_resized_as_declared():
    big = np.kron(PIXELS, np.ones((2, 2, 1), np.uint8))
    assert np.array_equal(read(image(S, big), resize="nearest"), PIXELS[None])


def test_joints_are_found_by_their_names():
    message = joints(S, c=3.0, x=9.0, a=1.0, b=2.0)
    wanted = {"of": JOINTS, "joints": ("a", "b", "c")}
    assert read(message, STATE, **wanted).tolist() == [[1, 2, 3]]
    message.velocity, message.effort = [7.0, 0.0, 5.0, 6.0], np.array([1.0, 2.0, 3.0, 4.0])
    six = Input("state", "observation", "f64", (1, 6))
    assert read(message, six, of=JOINTS, joints=("a", "b", "c"), fields=("velocity", "position")).tolist() == [
        [5, 6, 7, 1, 2, 3]]


SMOOTH = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
LARGE = Input("image", "observation", "u8", (1, 64, 64, 3))


def jpeg(pixels: np.ndarray = SMOOTH, **options) -> bytes:
    return encoded("JPEG", pixels, **({"quality": 95} | options))


def of_size(file: bytes, height: int, width: int) -> bytes:
    """The same with another size in its header."""
    at = file.index(b"\xff\xc0") + 5
    return file[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + file[at + 4:]


def test_jpegs_are_what_pillow_reads():
    for file in (jpeg(), jpeg(progressive=True), jpeg(subsampling=0)):
        found = read(stamped(S, format="jpeg", data=file), LARGE, COMPRESSED)[0]
        assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(file))))
    grey = jpeg(SMOOTH[..., 0])
    found = read(stamped(S, format="jpeg", data=grey), LARGE, COMPRESSED)[0]
    assert np.array_equal(found[..., 1], np.asarray(Image.open(io.BytesIO(grey))))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_jpeg_that_lacks_a_part_is_refused(share):
    """Pillow fills it with something and says nothing, where the file has an end: the control."""
    whole = jpeg()
    cut = whole[:300 + round(share * (len(whole) - 300))] + b"\xff\xd9"
    assert refusal(stamped(S, format="jpeg", data=cut), LARGE, COMPRESSED).where.startswith('input "image", format')
    if share > 0.3:  # of less it says something
        filled, expected = (np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in (cut, whole))
        assert filled.shape == expected.shape and not np.array_equal(filled, expected)


def test_a_jpeg_of_another_size_is_refused_before_it_is_unpacked(monkeypatch):
    whole = jpeg()
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("unpacked"))
    monkeypatch.setattr("vlart.ros.images.Camera", lambda *_: pytest.fail("unpacked"))
    for size in ((5000, 5000), (65500, 1), (65500, 65500), (64, 63)):
        refusal(stamped(S, format="jpeg", data=of_size(whole, *size)), LARGE, COMPRESSED)
    for size in ((65500, 65500), (8000, 8000)):
        refusal(stamped(S, format="jpeg", data=of_size(whole, *size)), LARGE, COMPRESSED, resize="bilinear")


def cmyk() -> bytes:
    out = io.BytesIO()
    Image.fromarray(SMOOTH).convert("CMYK").save(out, "JPEG")
    return out.getvalue()


def scans(count: int) -> bytes:
    file = jpeg(progressive=True)
    last = file.rindex(b"\xff\xda")
    return file[:last] + file[last:-2] * count + b"\xff\xd9"


@pytest.mark.parametrize("data", [cmyk(), scans(2000), jpeg()[:200], b"\xff\xd8\xff\xd9", b"\xff\xd8\xff"])
def test_an_odd_jpeg_is_refused(data):
    refusal(stamped(S, format="jpeg", data=data), LARGE, COMPRESSED)


def test_whatever_the_bytes_are_they_are_read_or_refused():
    random = np.random.default_rng(0)
    for file in (jpeg(), encoded("PNG", SMOOTH)):
        for _ in range(150):
            data = bytearray(file)
            for at in random.integers(0, len(data), random.integers(1, 9)):
                data[at] = random.integers(256)
            try:
                assert read(stamped(S, format="", data=bytes(data)), LARGE, COMPRESSED).shape == (1, 64, 64, 3)
            except Refusal as refused:
                assert "object at 0x" not in str(refused)


ODD_FIELDS = {
    "a height that is text": image(S, PIXELS, height="six"), "no number": image(S, PIXELS, height=float("nan")),
    "an infinite height": image(S, PIXELS, height=float("inf")), "a negative width": image(S, PIXELS, width=-WIDTH),
    "a negative step": image(S, PIXELS, step=-3 * WIDTH), "no data": image(S, PIXELS, data=None),
    "an encoding that is a list": image(S, PIXELS, ["rgb8"]),
}


@pytest.mark.parametrize("odd", ODD_FIELDS)
def test_odd_fields_are_refused(odd):
    refusal(ODD_FIELDS[odd])


@pytest.mark.parametrize("size", [(1, 16385), (20_000, 1)])
@pytest.mark.parametrize("method", ["bilinear", "nearest-pad"])
def test_a_frame_that_cannot_be_resized_is_refused(size, method):
    """Of a side that no camera has."""
    assert "can be resized" in refusal(image(S, np.zeros((*size, 3), np.uint8)), resize=method).fix


WRONG_JOINTS = {
    "dates": (stamped(S, name=["a", "b", "c"], position=np.array(["2020-01-01"] * 3, "M8[D]")), "numbers are none"),
    "digits": (stamped(S, name=["a", "b", "c"], position=["1", "2", "3"]), "numbers are none"),
    "complex": (stamped(S, name=["a", "b", "c"], position=[1j, 2.0, 3.0]), "numbers are none"),
    "a joint is missing": (joints(S, a=1.0, b=2.0), '"c"'),
    "none has a name": (joints(S), '"a"'),
    "a joint twice": (stamped(S, name=["a", "b", "c", "c"], position=[1.0] * 4), "twice"),
    "fewer numbers": (stamped(S, name=["a", "b", "c"], position=[1.0, 2.0]), "2 numbers of position"),
    "no numbers": (stamped(S, name=["a", "b", "c"], position=["x", 1.0, 2.0]), "numbers are none"),
    "not a number": (joints(S, a=1.0, b=float("nan"), c=0.0), "NaN"),
    "too large": (joints(S, a=1.0, b=1e39, c=0.0), "out of range"),
    "an image": (image(S, PIXELS), "no sensor_msgs/msg/JointState"),
}


@pytest.mark.parametrize("wrong", WRONG_JOINTS)
def test_joints_that_do_not_fit_are_refused(wrong):
    message, what = WRONG_JOINTS[wrong]
    assert what in refusal(message, STATE, JOINTS, joints=("a", "b", "c")).what


def test_numbers_have_their_count():
    assert read(Fields(data=[1.0, 2.0, 3.0]), STATE, NUMBERS, stamp="arrival").tolist() == [[1, 2, 3]]
    assert "one number per element" in refusal(Fields(data=[1.0]), STATE, NUMBERS, stamp="arrival").fix


def test_times_and_texts():
    assert stamp_ns(stamped(5 * S + 7)) == 5 * S + 7
    for wrong in (stamped(0), stamped(-S), Fields(), Fields(header=Fields(stamp=Fields(sec=1, nanosec=2 * S))),
                  Fields(header=Fields(stamp=Fields(sec=float("inf"), nanosec=0))), Fields(header=None)):
        with pytest.raises(Refusal) as refused:
            stamp_ns(wrong)
        assert "stamp: arrival" in refused.value.fix
    assert text_of(Fields(data="put")) == "put"
    for wrong in (Fields(data="a" * 5000), Fields(data=b"put"), Fields()):
        with pytest.raises(Refusal, match="no instruction"):
            text_of(wrong)


TOPICS = {"image": Topic("/i", IMAGE), "state": Topic("/j", JOINTS, joints=("a", "b", "c"))}
MISFITS = {
    "an input that is not there": (TOPICS | {"imag": Topic("/i", IMAGE)}, 'no input "imag"', "observation.imag"),
    "an input without a topic": ({"image": TOPICS["image"]}, 'input "state" has no topic', "observation"),
    "an image of numbers": (TOPICS | {"state": Topic("/i", IMAGE)}, "takes no images", "observation.state.type"),
    "joints of a frame": (TOPICS | {"image": TOPICS["state"]}, "takes 144 numbers", "observation.image.joints"),
    "fewer joints": (TOPICS | {"state": Topic("/j", JOINTS, joints=("a",))}, "takes 3 numbers",
                     "observation.state.joints"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_map_that_does_not_fit_the_policy_is_refused(misfit):
    topics, what, key = MISFITS[misfit]
    inputs = {"image": FRAME, "state": STATE}
    assert list(readers_of(TopicMap(TOPICS, Synchronise("image")), inputs)) == ["image", "state"]
    with pytest.raises(ConfigError) as refused:
        readers_of(TopicMap(topics, Synchronise("image")), inputs)
    assert what in refused.value.what and refused.value.where == key
