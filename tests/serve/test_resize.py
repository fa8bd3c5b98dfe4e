"""Frames of any camera, resized as torchvision does it; without that declared, the refusal names the shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.samples import policies
from tests.serve.record_resize import SIZES, frame_of
from tests.serve.serving import episode_of, in_process, websocket_server
from vlart.errors import ConfigError
from vlart.serve.resize import METHODS, resizer

ROWS = json.loads((Path(__file__).parents[1] / "golden" / "torchvision_resize.json").read_text())["rows"]
BASE = "observation.images.base"


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r['frame']}-{r['method']}")
def test_frames_are_those_of_torchvision(row):
    size = SIZES[row["frame"]][1]
    np.testing.assert_array_equal(resizer(row["method"])(frame_of(row["frame"]), size),
                                  np.array(row["pixels"], np.uint8).reshape(*size, 3))


def test_every_method_is_compared():
    assert {r["method"] for r in ROWS} == set(METHODS)
    wrong = resizer("bilinear")(frame_of(0), SIZES[0][1]).ravel().tolist()  # a control: methods differ
    assert sum(r["pixels"] == wrong for r in ROWS if r["frame"] == 0) == 1


@pytest.mark.parametrize(("frame", "size", "inner"), [
    ((480, 640), (128, 128), (96, 128)), ((640, 480), (128, 128), (128, 96)), ((1, 1000), (8, 8), (1, 8)),
    ((7, 7), (3, 9), (3, 3))])
def test_proportions_stay(frame, size, inner):
    shown = resizer("nearest-pad")(np.full((*frame, 1), 255, np.uint8), size)[..., 0].astype(bool)
    assert (shown.any(axis=1).sum(), shown.any(axis=0).sum()) == inner and shown.sum() == inner[0] * inner[1]
    top, left = ((size[i] - inner[i]) // 2 for i in (0, 1))
    assert shown[top: top + inner[0], left: left + inner[1]].all()


@pytest.mark.parametrize("method", METHODS)
def test_any_frame_and_any_size(method):
    """Sides of one pixel, long and thin frames, and views that no camera's driver copies first."""
    rng, resize = np.random.default_rng(0), resizer(method)
    for frame_size in ((1, 1), (1, 2), (2, 1), (64, 64), (3, 7), (1, 500), (500, 1), (480, 640)):
        for size in ((1, 1), (1, 3), (2, 2), (128, 128), (3, 200), (224, 1)):
            for channels in (1, 3, 4):
                frame = rng.integers(0, 256, (*frame_size, channels), dtype=np.uint8)
                got = resize(frame, size)
                assert got.shape == (*size, channels) and got.dtype == np.uint8
                np.testing.assert_array_equal(resize(np.full_like(frame, 77), size).max(), 77)
                frame.flags.writeable = False
                for view in (frame[::-1], frame[:, ::-1], frame[..., ::-1], np.asfortranarray(frame)):
                    np.testing.assert_array_equal(resize(view, size), resize(view.copy(), size))
                for one in range(channels):  # no channel reaches another
                    np.testing.assert_array_equal(resize(frame[..., one:one + 1], size)[..., 0], got[..., one])


def test_a_method_that_is_none():
    with pytest.raises(ConfigError, match="bilinar") as caught:
        resizer("bilinar")
    assert "bilinear" in caught.value.why


def test_a_camera_of_another_size_is_told_the_policys(late_fusion_bundle):
    pytest.importorskip("msgpack", reason="the server needs it: pip install 'vlacompile[serve]'")
    pytest.importorskip("websockets", reason="the server needs it: pip install 'vlacompile[serve]'")
    from tests.serve.websocket_clients import raw
    from vlart.serve.messages import pack, unpack

    observation = episode_of(policies.late_fusion(), 1)[0]
    large = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with websocket_server(late_fusion_bundle) as running, raw(running.place) as client:
        assert "resize" not in client.metadata
        for frame in (large, np.zeros((1080, 1920, 3), np.uint8)):
            client.send(pack(observation | {BASE: frame}))
            refused = client.recv(10)
            assert "u8[1,32,32,3]" in refused and "32 x 32" in refused and "--resize" in refused
        client.send(pack(observation))  # the connection stays
        assert unpack(client.recv(10))["actions"].shape == (10, 7)
    with websocket_server(late_fusion_bundle, resize="bilinear-pad") as running, raw(running.place) as client:
        assert client.metadata["resize"] == "bilinear-pad"
        small = resizer("bilinear-pad")(large, (32, 32))
        want = in_process(late_fusion_bundle, [observation | {BASE: small[None]}])[0]
        for frame in (large, large[None], small):
            client.send(pack(observation | {BASE: frame}))
            np.testing.assert_array_equal(unpack(client.recv(10))["actions"], want)
        for frame in (large[..., :1], large.astype(np.float32), large.transpose(2, 0, 1), large[:0]):
            client.send(pack(observation | {BASE: frame}))
            assert "where:" in client.recv(10)
