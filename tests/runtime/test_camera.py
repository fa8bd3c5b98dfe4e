"""Frames of any camera: resized as torchvision does it, colours as the standards say, JPEG as Pillow reads it. What C
promises of memory and strides is in runtime_c/tests/test_camera.c."""

from __future__ import annotations

import ctypes.util
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vlart
from vlart.errors import ConfigError, RuntimeFailure
from vlart.runtime.camera import PIXELS, Camera

HEIGHT, WIDTH = 48, 64
# ITU-R BT.601 and BT.709: (weight of red, weight of blue in luma)
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
needs_jpeg = pytest.mark.skipif(ctypes.util.find_library("turbojpeg") is None, reason="apt-get install libturbojpeg0")


def frame(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# Sizes

ANTIALIASED = {"antialias": True, "align_corners": False}
SMOOTH = {"bilinear": ANTIALIASED, "bicubic": ANTIALIASED,
          "bilinear-plain": {"align_corners": False}, "nearest": {}, "nearest-exact": {}}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SMOOTH)), *[st.integers(1, 160)] * 4, st.sampled_from([1, 3, 4]),
       st.integers(0, 2**32 - 1), st.booleans())
def test_resizing_gives_torchs_bytes(mode, height, width, out_height, out_width, channels, seed, extreme):
    """F.interpolate on bytes, which torchvision's resize calls."""
    if (out_height, out_width) == (1, 1):
        channels = 1  # torch 2.13 fails on several channels of one pixel
    data = frame(height, width, channels, seed=seed)
    data = (data > 127).astype(np.uint8) * 255 if extreme else data  # overshoots of the cubic, clipped
    planes = torch.from_numpy(np.ascontiguousarray(data.transpose(2, 0, 1)))[None]
    want = torch.nn.functional.interpolate(planes, size=(out_height, out_width), mode=mode.removesuffix("-plain"),
                                           **SMOOTH[mode])
    camera = Camera("as-is", (height, width), (out_height, out_width), resize=mode, channels=channels)
    np.testing.assert_array_equal(camera.convert(data), want[0].permute(1, 2, 0).numpy())


def test_padding_keeps_the_proportions_and_is_black():
    got = Camera("rgb8", (HEIGHT, WIDTH), (32, 32), resize="bilinear", fit="pad").convert(frame(HEIGHT, WIDTH, 3))
    inner = Camera("rgb8", (HEIGHT, WIDTH), (24, 32), resize="bilinear").convert(frame(HEIGHT, WIDTH, 3))
    np.testing.assert_array_equal(got[4:28], inner)
    assert not got[:4].any() and not got[28:].any()


def test_a_crop_is_looked_at_alone():
    data = frame(HEIGHT, WIDTH, 3)
    got = Camera("rgb8", (HEIGHT, WIDTH), (16, 16), resize="bicubic", crop=(5, 7, 30, 41)).convert(data)
    alone = Camera("rgb8", (30, 41), (16, 16), resize="bicubic").convert(data[5:35, 7:48])
    np.testing.assert_array_equal(got, alone)


# Colours

def coded(rgb: np.ndarray, standard: str, full: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma and chroma of RGB, from the standard's definition; chroma [h/2,w/2] of equal 2 x 2 blocks."""
    kr, kb = WEIGHTS[standard]
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if not full:
        y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
    y, u, v = (np.clip(np.rint(x), 0, 255).astype(np.uint8) for x in (y, u + 128, v + 128))
    return y, u[::2, ::2], v[::2, ::2]


def packed(pixels: str, y: np.ndarray, u: np.ndarray, v: np.ndarray):
    """As the format's document orders the bytes."""
    if pixels in ("yuyv", "uyvy"):
        u, v = np.repeat(u, 2, axis=0), np.repeat(v, 2, axis=0)
        parts = [y[:, ::2], u, y[:, 1::2], v] if pixels == "yuyv" else [u, y[:, ::2], v, y[:, 1::2]]
        return np.stack(parts, axis=-1)
    if pixels == "i420":
        return y, u, v
    return y, np.stack([u, v] if pixels == "nv12" else [v, u], axis=-1)


@pytest.mark.parametrize("pixels", ["yuyv", "uyvy", "nv12", "nv21", "i420"])
@pytest.mark.parametrize("colours", ["bt601", "bt601-full", "bt709", "bt709-full"])
def test_colours_come_back(pixels, colours):
    """From a picture through the standard's own definition, within the rounding of two bytes."""
    rgb = np.repeat(np.repeat(frame(HEIGHT // 2, WIDTH // 2, 3), 2, axis=0), 2, axis=1)
    sent = packed(pixels, *coded(rgb, colours.removesuffix("-full"), colours.endswith("-full")))
    got = Camera(pixels, (HEIGHT, WIDTH), (HEIGHT, WIDTH), colours=colours).convert(sent)
    assert np.abs(got.astype(int) - rgb).max() <= 3
    together = sent if not isinstance(sent, tuple) else np.concatenate([p.ravel() for p in sent])
    again = Camera(pixels, (HEIGHT, WIDTH), (HEIGHT, WIDTH), colours=colours).convert(together)
    np.testing.assert_array_equal(again, got)


def test_standards_and_orders_differ():
    """A control for the test above: another standard or another order shows."""
    rgb = np.repeat(np.repeat(frame(HEIGHT // 2, WIDTH // 2, 3), 2, axis=0), 2, axis=1)
    sent = packed("nv12", *coded(rgb, "bt601", full=False))
    for pixels, colours in (("nv21", "bt601"), ("nv12", "bt709"), ("nv12", "bt601-full")):
        got = Camera(pixels, (HEIGHT, WIDTH), (HEIGHT, WIDTH), colours=colours).convert(sent)
        assert np.abs(got.astype(int) - rgb).max() > 10


def test_blacker_than_black_is_black():
    y, u, v = np.arange(16, dtype=np.uint8).reshape(4, 4), *np.full((2, 2, 2), 128, np.uint8)
    assert not Camera("i420", (4, 4), (4, 4)).convert((y, u, v)).any()
    assert Camera("i420", (4, 4), (4, 4), colours="bt601-full").convert((y, u, v)).max() == 15


def test_orders_of_channels():
    rgb = frame(5, 7, 3)
    rgba = np.dstack([rgb, frame(5, 7, seed=1)])
    for pixels, data in (("rgb8", rgb), ("bgr8", rgb[..., ::-1]), ("rgba8", rgba), ("bgra8", rgba[..., [2, 1, 0, 3]])):
        np.testing.assert_array_equal(Camera(pixels, (5, 7), (5, 7)).convert(data), rgb)
    np.testing.assert_array_equal(Camera("gray8", (5, 7), (5, 7)).convert(rgb[..., 0]), np.repeat(rgb[..., :1], 3, -1))


def test_rows_with_room_between_them():
    rgb, room = frame(6, 8, 3), np.zeros((6, 40), np.uint8)
    room[:, :24] = rgb.reshape(6, 24)
    np.testing.assert_array_equal(Camera("rgb8", (6, 8), (6, 8)).convert(room, strides=(40, 0, 0)), rgb)
    nv12 = frame(9, 16)
    nv12[:, 8:] = 0
    wide = Camera("nv12", (6, 8), (6, 8)).convert(nv12, strides=(16, 16, 0))
    np.testing.assert_array_equal(wide, Camera("nv12", (6, 8), (6, 8)).convert(nv12[:, :8]))


# JPEG

def written(rgb: np.ndarray, **options) -> bytes:
    image = pytest.importorskip("PIL.Image", reason="pip install 'vlacompile[dataset]'")
    file = io.BytesIO()
    image.fromarray(rgb).save(file, "JPEG", **options)
    return file.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that JPEG does not blur away."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


@needs_jpeg
@pytest.mark.parametrize("options", [{"quality": 95, "subsampling": 0}, {"quality": 70, "subsampling": 2},
                                     {"quality": 80, "progressive": True}])
def test_jpeg_is_what_pillow_reads(options):
    from PIL import Image

    file = written(smooth(HEIGHT, WIDTH), **options)
    want = np.array(Image.open(io.BytesIO(file)))
    np.testing.assert_array_equal(Camera("jpeg", (HEIGHT, WIDTH), (HEIGHT, WIDTH)).convert(file), want)
    small = Camera("rgb8", (HEIGHT, WIDTH), (24, 24), resize="bilinear").convert(want)
    np.testing.assert_array_equal(Camera("jpeg", (HEIGHT, WIDTH), (24, 24), resize="bilinear").convert(file), small)


@needs_jpeg
def test_a_damaged_jpeg_is_refused():
    """Cut anywhere, libjpeg fills the rest with grey: no picture of that reaches a policy."""
    file, camera = written(smooth(HEIGHT, WIDTH), quality=90), Camera("jpeg", (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    for end in [*range(0, len(file) - 2, 37), len(file) // 2]:
        with pytest.raises(RuntimeFailure) as caught:
            camera.convert(file[:end])
        assert caught.value.status in ("CORRUPT", "WRONG_SHAPE")  # cut within its header, it has no size
    for bad in (b"", b"GIF89a", bytes(500), file[2:]):
        with pytest.raises(RuntimeFailure):
            camera.convert(bad)
    assert camera.convert(file).any()  # and goes on


@needs_jpeg
def test_bytes_between_markers_change_nothing():
    """As many USB cameras write them."""
    file, camera = written(smooth(HEIGHT, WIDTH), quality=90), Camera("jpeg", (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(camera.convert(file[:-2] + b"\x12\x34" + file[-2:]), camera.convert(file))


@needs_jpeg
def test_a_jpeg_of_another_size_is_refused():
    with pytest.raises(RuntimeFailure, match="another size") as caught:
        Camera("jpeg", (HEIGHT, WIDTH), (8, 8), resize="bilinear").convert(written(smooth(32, 32)))
    assert "32 x 32" in caught.value.why and f"{WIDTH} x {HEIGHT}" in caught.value.why


# Refusals

@pytest.mark.parametrize(("arguments", "options"), [
    (("rgb9", (8, 8), (8, 8)), {}), (("rgb8", (8, 8), (4, 4)), {"resize": "bilinar"}),
    (("rgb8", (8, 8), (8, 8)), {"fit": "crop"}), (("nv12", (8, 8), (8, 8)), {"colours": "bt2020"})])
def test_names_that_are_none(arguments, options):
    with pytest.raises(ConfigError) as caught:
        Camera(*arguments, **options)
    assert "choose one of" in caught.value.fix


@pytest.mark.parametrize(("arguments", "options"), [
    (("rgb8", (8, 8), (4, 4)), {}), (("rgb8", (0, 8), (4, 4)), {"resize": "bilinear"}),
    (("rgb8", (8, 8), (4, 99999)), {"resize": "bilinear"}), (("as-is", (8, 8), (8, 8)), {}),
    (("rgb8", (8, 8), (4, 4)), {"crop": (5, 5, 4, 4)}), (("rgb8", (8, 8), (8, 8)), {"channels": 3})])
def test_what_is_no_camera_is_refused(arguments, options):
    with pytest.raises(RuntimeFailure) as caught:
        Camera(*arguments, **options)
    assert caught.value.status == "BAD_ARGUMENT"


def test_a_frame_that_is_too_short():
    for pixels in PIXELS[:10]:
        with pytest.raises(RuntimeFailure, match="shorter") as caught:
            Camera(pixels, (8, 8), (8, 8)).convert(bytes(8))
        assert caught.value.status == "WRONG_SHAPE"


@pytest.mark.parametrize("bad", [np.zeros((8, 8, 3), np.float32), np.zeros((16, 16, 3), np.uint8),
                                 np.zeros((3, 8, 8), np.uint8)])
def test_an_array_of_something_else(bad):
    with pytest.raises(ConfigError, match="not what the camera gives"):
        Camera("rgb8", (8, 8), (8, 8)).convert(bad)


PICTURE = np.zeros((6, 8, 3), np.uint8)
OTHERS = {  # that have enough bytes, and would be another picture
    "four channels as three": ("rgb8", np.zeros((6, 8, 4), np.uint8)), "three as four": ("rgba8", PICTURE),
    "a picture as luma and chroma": ("nv12", PICTURE), "a picture as packed": ("yuyv", PICTURE),
    "a picture as planes": ("i420", PICTURE), "colours as grey": ("gray8", PICTURE),
    "columns first": ("nv12", np.zeros((12, 6), np.uint8)), "a wider one": ("rgb8", np.zeros((6, 30), np.uint8)),
    "chroma of another width": ("nv12", (np.zeros((6, 8), np.uint8), np.zeros((3, 16), np.uint8))),
    "numbers in an array of one": ("rgb8", np.array(7, np.uint8)), "signed": ("rgb8", PICTURE.astype(np.int8)),
    "nothing": ("rgb8", None), "text": ("rgb8", "abc"), "a list": ("rgb8", [1, 2, 3]),
    "too many planes": ("rgb8", (bytes(144), b"", b"", b"")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_frame_of_another_kind_is_refused(other):
    pixels, data = OTHERS[other]
    with pytest.raises(ConfigError, match="not what the camera gives"):
        Camera(pixels, (6, 8), (6, 8)).convert(data)


@pytest.mark.parametrize("pixels", ["rgb8", "yuyv", "nv12", "i420"])
@pytest.mark.parametrize("strides", [(-32, 0, 0), (2**64, 0, 0), (2**64 + 32, 0, 0), (32.0, 0, 0), 32, "32", None,
                                     (32, 16, 16, 16)])
def test_strides_that_are_none(pixels, strides):
    """ctypes would cut the bits off that are too many."""
    with pytest.raises(ConfigError, match="strides"):
        Camera(pixels, (6, 8), (6, 8)).convert(bytes(1000), strides)


PLANES = [(7, 0, 0), (2**63, 2**63, 2**63), (2**64 - 8, 0, 0)]


@pytest.mark.parametrize("pixels, strides", [
    *((pixels, strides) for pixels in ("rgb8", "yuyv", "nv12", "i420") for strides in PLANES),
    ("nv12", (0, 3, 3)), ("i420", (0, 3, 3))])
def test_strides_that_are_too_short_or_beyond_the_frame(pixels, strides):
    with pytest.raises(RuntimeFailure):
        Camera(pixels, (6, 8), (6, 8)).convert(bytes(200), strides)


@pytest.mark.parametrize("options", [{"size": (8,)}, {"size": 8}, {"size": "88"}, {"size": (8.0, 8)}, {"size": (-8, 8)},
                                     {"out": (8, 8, 3)}, {"out": (2**33, 8)}, {"crop": (0, 0, 8)}, {"crop": 8},
                                     {"crop": (-1, 0, 8, 8)}])
def test_sizes_that_are_none(options):
    with pytest.raises(ConfigError):
        Camera(**({"pixels": "rgb8", "size": (8, 8), "out": (8, 8)} | options))


@pytest.mark.parametrize("pixels", ["nv12", "nv21", "i420", "yuyv", "uyvy"])
@pytest.mark.parametrize("size", [(5, 7), (6, 7), (5, 8), (1, 1)])
def test_odd_sizes_share_the_last_colours(pixels, size):
    """Chroma of ceil(w/2) x ceil(h/2): what is bytes together is what is planes apart, and a byte less is refused."""
    (height, width), half, low = size, (size[1] + 1) // 2, (size[0] + 1) // 2
    dense = {"nv12": (height * width, 2 * half * low), "nv21": (height * width, 2 * half * low),
             "i420": (height * width, half * low, half * low)}.get(pixels, (4 * half * height,))
    planes = tuple(frame(n, seed=i) for i, n in enumerate(dense))
    camera, together = Camera(pixels, size, size), np.concatenate(planes)
    np.testing.assert_array_equal(camera.convert(planes), camera.convert(together))
    with pytest.raises(RuntimeFailure, match="shorter"):
        camera.convert(together[:-1])


def test_a_camera_that_is_closed_says_so():
    camera = Camera("rgb8", (8, 8), (8, 8))
    camera.close()
    camera.close()
    with pytest.raises(ConfigError, match="is closed"):
        camera.convert(bytes(192))


@needs_jpeg
def test_odd_jpegs_are_refused():
    """Cut within its data, but with an end; of four inks; of more scans than any camera sends."""
    image = pytest.importorskip("PIL.Image", reason="pip install 'vlacompile[dataset]'")
    whole, camera = written(smooth(HEIGHT, WIDTH), quality=90), Camera("jpeg", (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    inks, progressive = io.BytesIO(), written(smooth(HEIGHT, WIDTH), progressive=True)
    image.fromarray(smooth(HEIGHT, WIDTH)).convert("CMYK").save(inks, "JPEG")
    last = progressive.rindex(b"\xff\xda")
    for odd in (whole[:len(whole) * 2 // 3] + b"\xff\xd9", inks.getvalue(),
                progressive[:last] + progressive[last:-2] * 600 + b"\xff\xd9"):
        with pytest.raises(RuntimeFailure) as caught:
            camera.convert(odd)
        assert caught.value.status == "CORRUPT"
    assert camera.convert(whole).any() and camera.convert(progressive).any()


def test_it_is_public():
    assert vlart.Camera is Camera
