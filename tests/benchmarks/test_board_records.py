"""What of the latency model is fitted to measured boards: the rule, on made-up records in a folder of the test."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from benchmarks import board_records
from docs import board_model
from tests.samples.board_records import synthetic
from vlacompile.hardware import board_cost_model
from vlacompile.hardware.board_cost_model import BOARD_FACTORS, modelled_launch, modelled_rates
from vlacompile.hardware.target import load_target
from vlacompile.profile.board_record import KINDS
from vlacompile.profile.record_file import read_record, write_record
from vlart.errors import ConfigError

MADE_UP = ("synthetic",)
SLOW = {"a": 1.30, "b": 1.40, "c": 1.35}


def folder_of(tmp_path, factors=SLOW, **more):
    for letter, factor in factors.items():
        write_record(synthetic(factor, letter * 64, **more), tmp_path / f"{letter}.json")
    return tmp_path


def test_what_is_there_today():
    """None, and nothing is fitted to one; the constants are the fit."""
    rows = board_records.counted()
    assert board_records.constants(board_records.fit(rows).values()) == BOARD_FACTORS
    assert all(read_record(p).kind == "board" for p in board_records.FOLDER.rglob("*.json")), "only boards belong there"


def test_made_up_records_never_count(tmp_path):
    folder = folder_of(tmp_path)
    assert board_records.counted(folder) == [] and board_records.document(folder) == {"rows": [], "factors": {}}
    assert len(board_records.counted(folder, MADE_UP)) == 3, "the control: only their kind keeps them out"


def test_a_factor_is_the_mean_and_is_used_where_it_predicts_the_others(tmp_path):
    found = board_records.fit(board_records.counted(folder_of(tmp_path), MADE_UP))["orin-nano-8gb"]
    assert found.bundles == 3 and found.fitted == pytest.approx((1.30 * 1.40 * 1.35) ** (1 / 3), rel=1e-3)
    assert found.used == found.fitted and found.without == pytest.approx(1.35, rel=1e-3)
    assert found.others == pytest.approx(1.40 / math.sqrt(1.30 * 1.35), abs=0.02) and found.others < found.without
    assert board_records.constants([found]) == {"orin-nano-8gb": round(found.used, 4)}


def test_a_factor_that_does_not_predict_is_not_used(tmp_path):
    """Errors on both sides of the model: the others say nothing about the one."""
    rows = board_records.counted(folder_of(tmp_path, {"a": 0.75, "b": 1.45, "c": 1.0}), MADE_UP)
    found = board_records.fit(rows)["orin-nano-8gb"]
    assert found.fitted is not None and found.others > found.without and found.used == 1.0
    assert board_records.constants([found]) == {}


def test_two_bundles_are_too_few(tmp_path):
    found = board_records.fit(board_records.counted(folder_of(tmp_path, {"a": 1.3, "b": 1.3}), MADE_UP))
    assert found["orin-nano-8gb"].fitted is None and found["orin-nano-8gb"].used == 1.0


def test_a_bundle_counts_once(tmp_path):
    """The newest of a mode; several modes are one bundle."""
    write_record(synthetic(9.0, "a" * 64, date="2026-01-01"), tmp_path / "old.json")
    write_record(synthetic(1.30, "a" * 64, date="2026-03-01"), tmp_path / "new.json")
    write_record(synthetic(1.30, "a" * 64, mode="15W"), tmp_path / "slow.json")
    rows = board_records.counted(tmp_path, MADE_UP)
    assert len(rows) == 2 and {r.mode for r in rows} == {"maxn-super", "15w"}
    for r in rows:
        assert r.measured_ms / r.modelled_ms == pytest.approx(1.30, rel=1e-3), "at the clock that each mode holds"
    assert board_records.fit(rows)["orin-nano-8gb"].bundles == 1


def test_the_clock_that_was_held_is_modelled(tmp_path):
    """A board that its governor kept at half its clock is no slower than the model."""
    at_rest = synthetic()
    slow = at_rest.sensors.gpu_mhz
    half = replace(slow, low=slow.low / 2, median=slow.median / 2, high=slow.high / 2)
    write_record(replace(at_rest, sensors=replace(at_rest.sensors, gpu_mhz=half)), tmp_path / "r.json")
    (row,) = board_records.counted(tmp_path, MADE_UP)
    assert row.measured_ms / row.modelled_ms < 0.9


@pytest.mark.parametrize(("change", "why"), [
    (lambda r: replace(r, same=replace(r.same, count=99)), "fewer than 100 replans"),
    (lambda r: replace(r, sensors=replace(r.sensors, throttled={"gpu-throttle-alert": 1})), "was slowed down by"),
    (lambda r: replace(r, stages=(replace(r.stages[0], ends=True), *r.stages[1:])), "the data ends the loop")])
def test_what_does_not_count(tmp_path, change, why):
    record = change(synthetic())
    assert why in board_records.why_not(record, MADE_UP)
    write_record(record, tmp_path / "r.json")
    assert board_records.counted(tmp_path, MADE_UP) == []
    assert board_records.why_not(synthetic(), MADE_UP) == ""


def test_a_bad_file_is_not_passed_over(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match="it is no board record"):
        board_records.counted(tmp_path, MADE_UP)


def test_a_factor_is_of_all_times(monkeypatch):
    """Twice the factor, twice the latency of every kernel and launch."""
    before = load_target("orin-nano-8gb@maxn-super")
    monkeypatch.setitem(board_cost_model.BOARD_FACTORS, "orin-nano-8gb", 2.0)
    after = load_target("orin-nano-8gb@maxn-super")
    for scheme in ("fp32", "fp16", "int8", "int4"):
        a, b = getattr(before.rates, scheme), getattr(after.rates, scheme)
        assert b.once_us(1e9, 1e6, b.linear_gflops) == pytest.approx(2 * a.once_us(1e9, 1e6, a.linear_gflops))
        assert b.once_us(1e3, 1e6, b.linear_gflops) == pytest.approx(2 * a.once_us(1e3, 1e6, a.linear_gflops))
    assert after.launch.overhead_us == 2 * before.launch.overhead_us
    other = load_target("orin-nx-16gb")
    assert other.rates == modelled_rates(other.board, other.power), "of that board alone"
    assert before.launch == modelled_launch(before.board, before.power)


def test_the_page_shows_what_counts(tmp_path, monkeypatch):
    assert board_model.measured().startswith("No record of a board so far") == (not board_records.counted())
    found = {"measured": board_records.document(folder_of(tmp_path), MADE_UP)}
    monkeypatch.setattr(board_model, "figures_of", lambda path: found)
    text = board_model.measured()
    assert text.count("| made-up | orin-nano-8gb@maxn-super |") == 3 and "| 1.30 |" in text
    assert "orin-nano-8gb: 3 bundles, factor 1.35" in text and text.rstrip().endswith(": used")


def test_the_program_says_what_counts(tmp_path, capsys, monkeypatch):
    write_record(synthetic(1.3), tmp_path / "made.json")
    (tmp_path / "bad.json").write_text(json.dumps({"format": "x"}))
    monkeypatch.setattr("sys.argv", ["board_records", str(tmp_path / "made.json"), str(tmp_path / "bad.json")])
    assert board_records.main() == 1
    out = capsys.readouterr().out
    assert KINDS["synthetic"] in out and "does not count" in out and "bad.json: a board record is refused" in out
