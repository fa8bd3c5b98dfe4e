"""One mutation per rule that the reader enforces; every one is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plan_damage import ACTIONS, BOARD, BUCKETS, GUARDS, LIMITS, LOOPS, STRUCTURE, rows_behind_an_end
from sample_actions import Relay, samples
from sample_backbones import bucketed
from sample_bundles import Bundle, Flow, Reactive, sealed
from sample_loops import Ending
from vlart_ctypes import BundleInfo, Failure, Policy

from tests.runtime_c.running import assert_outputs
from vlart import vocabulary
from vlart.bundle.format import layout


def test_damaged_files_are_named(lib, tmp_path):
    def opened(root):
        with Policy(lib, root):
            pass

    for number, (path, change, status) in enumerate([
        ("stages/weights.bin", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "CORRUPT"),
        ("stages/head.onnx", lambda d: d + b"x", "CORRUPT"),
        ("stages/vision.onnx", lambda d: None, "IO"),
        ("plan.bin", lambda d: None, "IO"),
        ("plan.bin", lambda d: b"", "NOT_A_BUNDLE"),
        ("plan.bin", lambda d: b"something else entirely" * 10, "NOT_A_BUNDLE"),
        ("plan.bin", lambda d: sealed(d[:8] + b"\x07" + d[9:]), "VERSION"),
        ("plan.bin", lambda d: d[:500] + bytes([d[500] ^ 4]) + d[501:], "CORRUPT"),
        ("plan.bin", lambda d: d[:-64], "CORRUPT"),
    ]):
        root = Reactive().bundle.write(tmp_path / str(number))
        opened(root)
        data = change((root / path).read_bytes())
        (root / path).unlink() if data is None else (root / path).write_bytes(data)
        with pytest.raises(Failure) as failure:
            opened(root)
        assert failure.value.status == status, failure.value
        assert Path(path).name in failure.value.where and failure.value.why and failure.value.fix


@pytest.mark.parametrize("rule", STRUCTURE)
def test_structure_is_checked(lib, tmp_path, rule):
    """One mutation per rule, checksums right: the rule itself must refuse it, and say why."""
    apply, why = STRUCTURE[rule]
    flow = Flow(3)
    root = flow.bundle.write(tmp_path)
    plan = flow.bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


@pytest.mark.parametrize("rule", BOARD)
def test_engines_to_build_are_checked(lib, tmp_path, rule):
    apply, why = BOARD[rule]
    bundle = Flow(3).on_board().bundle
    root = bundle.write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


@pytest.mark.parametrize("rule", ACTIONS)
def test_actions_are_checked(lib, tmp_path, rule):
    sample, apply, why = ACTIONS[rule]
    bundle = samples()[sample].bundle
    root = bundle.write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


@pytest.mark.parametrize("rule", GUARDS)
def test_guards_are_checked(lib, tmp_path, rule):
    apply, why = GUARDS[rule]
    bundle = samples()["guarded"].bundle
    if "integers" in rule:
        bundle.plan.records["decodes"].clear()  # which reads that source as f32
    root = bundle.write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


@pytest.mark.parametrize("rule", LIMITS)
def test_limits_and_tables_are_checked(lib, tmp_path, rule):
    apply, why = LIMITS[rule]
    bundle = samples()["limited_clip"].bundle
    root = bundle.write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


@pytest.mark.parametrize("rule", LOOPS)
def test_ends_of_loops_are_checked(lib, tmp_path, rule):
    apply, why = LOOPS[rule]
    bundle = Ending(4).bundle
    root = bundle.write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


@pytest.mark.parametrize("rule", BUCKETS)
def test_lengths_of_a_text_are_checked(lib, tmp_path, rule):
    apply, why = BUCKETS[rule]
    root = bucketed().write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bucketed().plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


def test_a_loop_that_the_data_ends_writes_no_rows(lib, tmp_path):
    bundle = Flow(3).bundle
    root = bundle.write(tmp_path)
    plan = bundle.plan_container()
    rows_behind_an_end(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure, match="writes a row in every iteration"), Policy(lib, root):
        pass


def test_what_the_runtime_fills_has_no_age(lib, tmp_path):
    relay = samples()["realtime"]
    relay.guard(2, max_age_us=5)
    with pytest.raises(Failure, match="CORRUPT.*filled by the runtime"):
        Policy(lib, relay.bundle.write(tmp_path))


def test_beyond_this_reader_is_unsupported_not_corrupt(lib, ort, tmp_path):
    def opened(name: str, section: str, index: int, **fields) -> Policy:
        flow = Flow(3)
        flow.bundle.plan.records[section][index].update(fields)
        return Policy(lib, flow.bundle.write(tmp_path / name))

    with pytest.raises(Failure, match="UNSUPPORTED.*65537 iterations"):
        opened("loop", "stages", 0, iterations=65537)
    with pytest.raises(Failure, match="UNSUPPORTED.*backend 7"):
        opened("unknown", "stages", 0, backend=7)
    huge = Relay("huge", "i32", (1, 3), (1 << 20, 2)).pieces([(1,)])
    with pytest.raises(Failure, match="UNSUPPORTED.*1048576 actions of 2 numbers"):
        Policy(lib, huge.bundle.write(tmp_path / "huge"))
    many = Bundle("many")
    for i in range(65):
        many.source(f"s{i}", "f32", (1,), "tick")
    with pytest.raises(Failure, match="UNSUPPORTED.*65"):
        Policy(lib, many.write(tmp_path / "many"))


def test_the_first_minor_version_is_read(lib, ort, tmp_path):
    """Without decode steps and consumption: a queue."""
    flow = Flow(2)
    root = flow.bundle.write(tmp_path)
    plan = flow.bundle.plan_container()
    plan.names = tuple(n for n in plan.names if n not in ("decodes", "consumption"))
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with Policy(lib, root).start(ort) as policy:
        assert policy.info("vlart_bundle_info", BundleInfo, policy.bundle).consume == vocabulary.CONSUMES["queue"]
        policy.run(flow.inputs())
        assert_outputs(policy, flow.reference(flow.inputs()))


def test_later_minor_versions_are_read(lib, ort, tmp_path):
    """Longer records, an unknown section and reserved fields in use do not disturb this reader."""
    flow = Flow(2)
    root = flow.bundle.write(tmp_path)
    plan = flow.bundle.plan_container()
    plan.later = True
    plan.records["values"][0]["reserved"] = 7
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with Policy(lib, root).start(ort) as policy:
        assert policy.info("vlart_bundle_info", BundleInfo, policy.bundle).format_minor == layout.FORMAT_MINOR + 1
        policy.run(flow.inputs())
        assert_outputs(policy, flow.reference(flow.inputs()))
