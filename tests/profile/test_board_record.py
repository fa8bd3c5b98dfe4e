"""Records of boards: what one is by its evidence, and what the one reader refuses, in four lines."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.samples.board_records import document, synthetic
from vlacompile.profile.board_record import KINDS, kind_of
from vlacompile.profile.record_file import place_of, read_record, write_record, write_record_or_keep
from vlart.errors import ConfigError

RECORD = synthetic()


def as_board(**device):
    """The same as if it were a board's: what the reader decides by."""
    found = replace(RECORD, synthetic=False, kind="board", label=KINDS["board"])
    return replace(found, device=replace(found.device, **device))


def put(path: str, value):
    """A change of the document at "a.b.0.c"; "!": the key is removed."""
    def change(found: dict) -> None:
        *keys, last = path.split(".")
        at = found
        for key in keys:
            at = at[int(key)] if isinstance(at, list) else at[key]
        if value == "!":
            del at[last]
        else:
            at[last] = value
    return change


def scaled(path: str, by: float):
    def change(found: dict) -> None:
        *keys, last = path.split(".")
        at = found
        for key in keys:
            at = at[int(key)] if isinstance(at, list) else at[key]
        at = at[last]
        for key, x in at.items():
            if isinstance(x, float):
                at[key] = x * by
    return change


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(RECORD, tmp_path / "a" / "r.json")
    found = read_record(tmp_path / "a" / "r.json")
    assert document(found) == document(RECORD) and found.ratio == pytest.approx(1.0, rel=1e-4)
    assert place_of(found, tmp_path) == tmp_path / "orin-nano-8gb" / f"{'a' * 16}-maxn-super.json"


REFUSED = {
    "another format": (put("format", "x"), "no board record"),
    "a later version": (put("version", 2), "this vlacompile reads 1"),
    "an unknown key": (put("stages.0.measured.median_us", 3.0), "did you mean"),
    "a key that is missing": (put("device.kernel", "!"), 'key "device.kernel" is missing'),
    "a wrong type": (put("replans", "300"), "wrong type"),
    "another label": (put("label", KINDS["board"]), 'its label is not that of kind "synthetic"'),
    "a kind that it is not": (put("kind", "board"), 'it is of kind "synthetic"'),
    "a failed self-test": (put("self_test", "self-test failed"), "did not pass"),
    "no date": (put("date", "yesterday"), "is no date"),
    "a median beyond its maximum": (put("same.max_ms", 0.001), "not in order"),
    "zero": (put("same.median_ms", 0.0), "not in order"),
    "microseconds": (scaled("same", 1000.0), "are they in us?"),
    "seconds": (scaled("same", 0.001), "are they in s?"),
    "a stage in microseconds": (scaled("stages.2.measured", 1000.0), "takes longer than a replan"),
    "a stage in seconds": (scaled("stages.2.measured", 0.001), "are they in s?"),
    "a stage beyond the peak": (scaled("stages.2.measured", 0.05), "is faster than the board can be"),
    "clocks in Hz": (scaled("sensors.gpu_mhz", 1e6), "kHz or Hz"),
    "a clock beyond its mode": (scaled("sensors.gpu_mhz", 1.3), "higher than its power mode allows"),
    "milliwatts": (scaled("sensors.watts.VDD_IN", 1000.0), "is it in mW?"),
    "thousandths of a degree": (put("sensors.most_celsius", 66000.0), "thousandths of a degree"),
    "memory in kB": (put("sensors.most_memory_mb", 3.2e6), "kB or bytes"),
    "more memory than there is": (put("sensors.most_memory_mb", 9000.0), "more memory is in use than there is"),
    "no such mode": (put("device.power_mode", "90W"), 'has no power mode "90W"'),
    "no such board": (put("device.target", "orin-pico"), '"orin-pico" is no board'),
    "engines that failed": (put("built.golden", "failed"), "did not pass their golden frames"),
    "a stage twice": (put("stages.1.name", "vision"), "a stage is there twice"),
    "a product without size": (put("stages.0.products.0.count", 0), "has no size"),
    "a terminal's bell": (put("notes", "\x07"), "no short line of text"),
    "a long text": (put("notes", "x" * 301), "no short line of text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_true_is_refused(tmp_path, name):
    change, words = REFUSED[name]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document(RECORD, change)), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_record(path)
    assert words in str(error.value) and str(path) in error.value.where and error.value.fix


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format": NaN}', "\xff"])
def test_what_is_no_record(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="it is no board record"):
        read_record(path)
    with pytest.raises(ConfigError, match="it is no board record"):
        read_record(tmp_path / "absent.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_without_a_value(tmp_path, number):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document(RECORD)).replace('"most_celsius": 66.0', f'"most_celsius": {number}'))
    with pytest.raises(ConfigError, match="it is no board record"):
        read_record(path)


def test_only_what_a_board_shows_is_a_board():
    """Each piece of evidence alone keeps a record from being one."""
    board = as_board()
    assert kind_of(board) == ("board", "nothing is missing")
    sensors, built = board.sensors, board.built
    for lacking, kind in (
            (as_board(compatible="nvidia,p3701-0005"), "unproven"), (as_board(compatible=""), "unproven"),
            (as_board(l4t=None), "unproven"), (as_board(l4t="99.0"), "unproven"),
            (as_board(power_mode=None), "unproven"),
            (as_board(architecture="x86_64"), "emulator"), (as_board(model="QEMU Virtual Machine"), "emulator"),
            (as_board(architecture="x86_64", ran_architecture="x86_64"), "unproven"),
            (replace(board, sensors=replace(sensors, gpu_mhz=None)), "unproven"),
            (replace(board, sensors=replace(sensors, watts={})), "unproven"),
            (replace(board, sensors=replace(sensors, readings=0)), "unproven"),
            (replace(board, built=replace(built, gpu="NVIDIA GeForce RTX 4090")), "unproven"),
            (replace(board, built=replace(built, gpu="Orin, a double")), "double"),
            (replace(board, built=None), "processor"), (replace(board, synthetic=True), "synthetic")):
        assert kind_of(lacking)[0] == kind and kind_of(lacking)[1], lacking


@pytest.mark.parametrize(("said", "mode"), [("MAXN_SUPER", "maxn-super"), ("15W", "15w"), ("MODE_30W", "30w"),
                                            ("MAXN", "maxn"), (None, None)])
def test_modes_are_spelt_as_targets_do(said, mode):
    assert as_board(power_mode=said).device.mode == mode


def test_a_double_that_says_it_is_a_board_is_refused(tmp_path):
    lying = replace(as_board(), built=replace(RECORD.built, gpu="Orin, a double"))
    (tmp_path / "r.json").write_text(json.dumps(document(lying)))
    with pytest.raises(ConfigError, match='a board record is refused: it is of kind "double"') as error:
        read_record(tmp_path / "r.json")
    assert 'it says that it is of kind "board"' in error.value.why


def test_a_measurement_that_is_refused_is_kept(tmp_path):
    """It took a board to make it."""
    impossible = replace(RECORD, sensors=replace(RECORD.sensors, most_celsius=1e5))
    with pytest.raises(ConfigError, match="is refused") as error:
        write_record_or_keep(impossible, tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists() and "r.json.refused" in error.value.fix
    assert json.loads((tmp_path / "r.json.refused").read_text())["sensors"]["most_celsius"] == 1e5
