"""`vlacompile zoo`: a row per system, all of one system, and mistakes that are told before PyTorch is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vlacompile.zoo import catalogue, recorded

SYSTEMS = 29


def test_a_row_per_system_with_its_variants_in_80_columns(cli):
    code, out, _ = cli("zoo")
    lines = out.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80 and f"{SYSTEMS} systems" in out
    rows = [line.split() for line in lines]
    for entry in catalogue.entries():
        assert sum(row[:1] == [entry.module.replace("_", "-")] for row in rows) == 1, entry.name
        assert entry.variant in out


def test_json_has_all_of_every_system(cli):
    systems = json.loads(cli("zoo", "--json")[1])["systems"]
    assert len(systems) == SYSTEMS
    names = [v["name"] for s in systems for v in s["variants"]]
    assert names == [e.name for e in catalogue.entries()]
    assert all(v["what"] for s in systems for v in s["variants"])
    for s in systems:
        assert s["year"] > 2000 and s["architecture"] and s["licence_of_code"] and s["licence_of_weights"]
        assert s["kind"] == ("reconstruction" if s["assumptions"] else "original")
        assert len({v["what"] for v in s["variants"]}) == len(s["variants"]), f"{s['name']}: which is which?"
        assert s["variants"][0]["parameters"] > 0


def test_a_system_has_all_its_variants_and_a_variant_itself_alone(cli):
    whole, one = (json.loads(cli("zoo", name, "--json")[1]) for name in ("octo", "octo-base"))
    assert [v["variant"] for v in whole["variants"]] == ["small", "base"]
    assert one["variants"] == whole["variants"][1:]
    assert whole["variants"][0]["iterations"] == [20] and whole["variants"][0]["cached_per_task"] == ["language"]
    _, out, _ = cli("zoo", "octo")
    text = " ".join(out.split())
    assert "zoo:octo-base" in text and "loop of 20 steps" in text and "cached per task: language" in text


def test_without_recorded_plans_it_says_how_to_plan(cli, monkeypatch, tmp_path):
    """As of a system that was added and not planned yet."""
    monkeypatch.setattr(recorded, "FILE", tmp_path / "recorded.json")
    code, out, _ = cli("zoo", "octo-base")
    assert code == 0 and "`vlacompile plan zoo:octo-base --no-weights`" in " ".join(out.split())
    assert json.loads(cli("zoo", "octo-base", "--json")[1])["variants"][0]["parameters"] is None


def test_a_size_belongs_to_a_source(cli):
    code, _, err = cli("zoo", "openvla@tiny")
    assert code == 2 and "size of a SOURCE" in err and "vlacompile plan zoo:openvla@tiny" in " ".join(err.split())


@pytest.mark.parametrize("argv", [("plan", "zoo:nanovls"), ("build", "zoo:nanovls@tiny"), ("zoo", "nanovls"),
                                  ("plan", "zoo:nanovla@tinny")], ids=" ".join)
def test_a_typo_is_told_before_the_compiler_is_loaded(argv):
    code = ("import sys; from vlacompile.cli.main import main; code = main(sys.argv[1:]); "
            "assert 'torch' not in sys.modules; sys.exit(code)")
    ran = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 4, ran.stderr
    assert "nanovla" in ran.stderr or "tiny" in ran.stderr


def test_an_option_of_another_verb_is_named_as_such(cli):
    code, _, err = cli("build", "zoo:octo@tiny", "--no-weights")
    assert code == 2 and "an option of plan" in err and "--weights" not in err.replace("--no-weights", "")
    _, _, err = cli("build", "zoo:octo@tiny", "--wieghts")
    assert '"--weights"' in err, "a typo still is one"
