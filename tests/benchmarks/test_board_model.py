"""The models held against published boards: what is fitted, what is left out, in which units. Nothing is run on one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import atlas, board_model
from benchmarks.published_rows import policies, powers, scales
from vlacompile.files.toml import shipped
from vlacompile.hardware.target import load_target, modes_of
from vlacompile.profile import power
from vlacompile.profile.published import POLICY_RATIOS
from vlacompile.zoo.recorded import FILE as SUMMARY
from vlart.errors import ConfigError

TABLE, POWERS = policies(), powers()
TARGET = load_target(TABLE.target)


def fitted(rows=TABLE.row, others=POWERS):
    return board_model.fit_power(rows, others, TARGET)


def with_row(kind: str, **changes):
    return replace(TABLE, row=tuple(replace(r, **changes) if r.kind == kind else r for r in TABLE.row))


def test_the_constants_are_the_fit():
    fit = fitted()
    assert pytest.approx(fit.load_mw, rel=1e-4) == power.LOAD_MW
    assert pytest.approx(fit.volts_per_mhz, rel=1e-4) == power.VOLTS_PER_MHZ
    assert pytest.approx((fit.floor_w, fit.idle_w_per_gbps), rel=1e-3) == (power.FLOOR_W, power.IDLE_W_PER_GBPS)
    assert (TARGET.name.partition("@")[0], TARGET.power.name) == power.FITTED_TO
    assert power.watts(TARGET) == pytest.approx(
        fit.idle_watts(TARGET) + fit.load_watts(TARGET.power.sms, TARGET.power.busy_mhz), rel=1e-4)


def test_the_errors_are_those_of_the_rows():
    said = json.loads(board_model.RECORD.read_text(encoding="utf-8"))
    assert said == json.loads(json.dumps(board_model.document())), "run `python -m benchmarks.board_model`"
    assert pytest.approx(said["summary"]["power"]["largest"], abs=5e-3) == power.FITTED_FACTOR
    assert pytest.approx(said["summary"]["power elsewhere"]["largest"], abs=1e-2) == power.EXTRAPOLATED_FACTOR
    assert pytest.approx(POLICY_RATIOS, abs=5e-4) == [r["modelled_ms"] / r["published_ms"] for r in said["rows"]]


@pytest.mark.parametrize("kind", [r.kind for r in TABLE.row])
def test_a_policy_is_not_fitted_to_itself(kind):
    """Three times its power, memory and latency change the other predictions, and not its own."""
    row = next(r for r in TABLE.row if r.kind == kind)
    watts = replace(row.watts, VDD_IN=3 * row.watts.VDD_IN)
    changed = with_row(kind, watts=watts, memory_mib=3 * row.memory_mib, latency_ms=3 * row.latency_ms)
    before, after = board_model.compare(TABLE, POWERS), board_model.compare(changed, POWERS)
    for a, b in zip(before, after, strict=True):
        assert a.modelled_ms == b.modelled_ms, "no latency is fitted to a policy"
        same = a.modelled_mb == b.modelled_mb and a.modelled_watts == b.modelled_watts
        assert same == (a.kind == kind)
    assert fitted(changed.row).load_mw > 1.4 * fitted().load_mw, "it counts where it is not left out"


def test_held_out_powers_are_not_fitted():
    doubled = [replace(r, watts=2 * r.watts) if not (r.voltage or r.floor) else r for r in POWERS]
    assert fitted(others=doubled) == fitted() and len(POWERS) > 8
    stressed = [replace(r, watts=2 * r.watts) if r.voltage and r.target.endswith("maxn") else r for r in POWERS]
    assert fitted(others=stressed).volts_per_mhz > 1.3 * fitted().volts_per_mhz


def test_units():
    """W x s = J of what was published; rails are parts of the module; the replan's stages are most of it."""
    for row in TABLE.row:
        assert row.joules == pytest.approx(row.watts.VDD_IN * row.latency_ms / 1e3, rel=0.01)
        for rails in (row.watts, row.idle_watts):
            assert rails.VDD_CPU_GPU_CV + rails.VDD_SOC < rails.VDD_IN < 25
        stages = sum(s.ms for s in row.stage) + row.preprocess_ms
        assert 0.95 * row.latency_ms < stages <= row.latency_ms
        assert board_model.engine_bytes(board_model.plan_of(row.kind)) / 1e6 < row.memory_mb < 7.92e3
    for found in board_model.compare(TABLE, POWERS):
        assert found.modelled_joules == pytest.approx(found.modelled_watts * found.modelled_ms / 1e3)


def test_every_stage_of_ours_is_compared_once():
    for row in TABLE.row:
        times = board_model.stage_ms(board_model.plan_of(row.kind), TARGET)
        named = [[s.name for s in row.stage if n.startswith(s.ours)] for n, t in times.items() if t > 0.2]
        assert all(len(n) == 1 for n in named), row.kind
        assert {n for found in named for n in found} == {s.name for s in row.stage}, row.kind


def test_boards_are_ordered_as_published():
    ratios = board_model.board_ratios(scales())
    for of in ratios.values():
        middle = of["published"][len(of["published"]) // 2]
        assert of["modelled"] == pytest.approx(middle, rel=0.15) and of["published"] == sorted(of["published"])


def test_a_misspelt_key_is_refused(tmp_path, monkeypatch):
    from benchmarks import published_rows

    text = (published_rows.FOLDER / "powers.toml").read_text(encoding="utf-8")
    (tmp_path / "powers.toml").write_text(text.replace("voltage =", "voltages =", 1), encoding="utf-8")
    monkeypatch.setattr(published_rows, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match="voltages"):
        powers()


def test_every_mode_of_the_atlas_has_its_energy():
    for board in atlas.BOARDS:
        modes = modes_of(board)
        assert board in shipped("targets") and modes
        for mode in modes:
            target = load_target(f"{board}@{mode.name}")
            busy, idle = power.watts(target), power.idle_watts(target)
            assert 0 < idle < busy < 70 and power.power_factor(target) >= power.FITTED_FACTOR


def test_records_of_the_atlas_give_its_energy_again():
    """Each replan that has a latency has its joules: power of the board's mode by time."""
    found = 0
    for path in sorted(atlas.FOLDER.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert atlas.again(record) == record, "run `python -m benchmarks.atlas --from-records`"
        for name, board in record["boards"].items():
            if (latency := board["latency"]) is not None:
                want = power.watts(load_target(name)) * latency["same_instruction_ms"] / 1e3
                assert latency["joules"] == pytest.approx(want) and latency["extrapolated"], path.name
                found += 1
    assert found > 150
    lower = record | {"boards": {n: b | {"latency": {**b["latency"], "joules": 1.0}} if b["latency"] else b
                                 for n, b in record["boards"].items()}}
    assert atlas.again(lower) == record


def test_what_the_zoo_says_is_of_the_records():
    assert SUMMARY.read_text(encoding="utf-8") == atlas.summary()


def test_scales_per_token_cost_part_of_what_int8_wins():
    """As docs/board-model.md says."""
    rows = board_model.scaled_per_token(TABLE)
    assert len(rows) == len(TABLE.row)
    assert all(r["static_ms"] < r["worst_ms"] < r["fp16_ms"] for r in rows)
