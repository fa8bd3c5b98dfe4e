"""`vlacompile route`: fitting from logs, showing, deciding, and what it refuses."""

from __future__ import annotations

import json

import pytest

from vlacompile.cli.main import main
from vlart.bundle.format.layout import ROUTING_MAGIC

STOVE, PLATE = "turn on the stove", "put the bowl on the plate"


@pytest.fixture
def cli(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def call(*argv) -> tuple[int, str, str]:
        code = main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def logs(tmp_path):
    """The light one fails on the stove, but for one state in four."""
    for member in ("light", "heavy"):
        rows = [{"instruction": t, "state": s, "success": good, "replans": 9 if good else 30}
                for s in range(12) for t in (STOVE, PLATE)
                for good in [member == "heavy" or t == PLATE or s % 4 == 0]]
        (tmp_path / f"{member}.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    return [f"{m}={tmp_path / m}.jsonl" for m in ("light", "heavy")]


COSTS = ["--cost", "light=5+3", "--cost", "heavy=40+3.2"]


@pytest.fixture
def table(cli, logs, tmp_path):
    out = tmp_path / "routing.json"
    assert cli("route", "fit", *logs, *COSTS, "-o", out)[0] == 0
    return out


def test_fit_writes_both_files_and_says_what_it_chose(cli, logs, tmp_path):
    out = tmp_path / "a.json"
    code, text, _ = cli("route", "fit", *logs, *COSTS, "-o", out)
    assert code == 0 and (tmp_path / "a.bin").read_bytes()[:8] == ROUTING_MAGIC and "by cross-validation over" in text
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 80
    again = tmp_path / "b.json"
    code, text, _ = cli("route", "fit", *logs, *COSTS, "-o", again, "--json")
    assert out.read_bytes() == again.read_bytes()
    document = json.loads(text)
    taken = {r["instruction"]: r["backbone"] for r in document["routes"] if r["instruction"]}
    assert taken == {STOVE: "heavy", PLATE: "light"}
    assert document["cross_validation"]["kept"] and document["cross_validation"]["routed"]["success"] == 1.0


def test_states_that_are_left_out_are_not_counted(cli, logs, tmp_path):
    out = tmp_path / "a.json"
    assert cli("route", "fit", *logs, *COSTS, "-o", out, "--states", "0,4,8", "--delta", 0.05, "--tau", 0.2)[0] == 0
    document = json.loads(cli("route", "show", out, "--json")[1])
    assert document["rule"] == {"delta": 0.05, "tau": 0.2} and "states 0,4,8" in document["sources"]
    assert next(r for r in document["routes"] if r["instruction"] == STOVE)["backbone"] == "light"


def test_a_budget_is_kept_or_said_not_to_be(cli, logs, tmp_path):
    tight = json.loads(cli("route", "fit", *logs, *COSTS, "-o", tmp_path / "a.json", "--budget", 0.1, "--json")[1])
    assert not tight["cross_validation"]["kept"]
    _, text, _ = cli("route", "fit", *logs, *COSTS, "-o", tmp_path / "a.json", "--budget", 0.1)
    assert "no rule stays within" in text


def test_show_and_decide(cli, table):
    code, text, _ = cli("route", "show", table)
    assert code == 0 and STOVE in text and "in no cluster" in text and max(map(len, text.splitlines())) <= 80
    code, text, _ = cli("route", "decide", table, STOVE, "Put a bowl on that plate!", "xyzzy", "--draws", 50000)
    assert code == 0 and max(map(len, text.splitlines())) <= 80
    assert text.count("chosen: heavy") == 1 and text.count("chosen: light") == 2
    assert "by its words" in text and "no cluster is near" in text and "P by draws" in text
    document = json.loads(cli("route", "decide", table, STOVE, "--draws", 50000, "--json")[1])["decisions"][0]
    light = document["backbones"][0]
    assert document["backbone"] == "heavy" and light["probability"] < document["tau"]
    assert abs(light["drawn"] - light["probability"]) < 5 * light["drawn_error"]


def test_an_embedding_is_used(cli, logs, tmp_path):
    vectors, out = tmp_path / "e.json", tmp_path / "a.json"
    vectors.write_text(json.dumps({STOVE: [1.0, 0.0, 0.0], PLATE: [0.0, 1.0, 0.0]}))
    assert cli("route", "fit", *logs, *COSTS, "-o", out, "--embeddings", vectors)[0] == 0
    one = tmp_path / "one.json"
    one.write_text("[0.9, 0.1, 0.1]")
    document = json.loads(cli("route", "decide", out, "light it", "--embedding", one, "--json")[1])["decisions"][0]
    assert (document["by"], document["cluster"], document["level"]) == ("embedding", 0, "cluster")


@pytest.mark.parametrize("argv,what", [
    (["fit", "{light}", "-o", "{out}", *COSTS], "no log for"),
    (["fit", "{light}", "{heavy}", "-o", "{out}"], "the cost of"),
    (["fit", "{light}", "{heavy}", *COSTS], "no output file"),
    (["fit", "{light}", "{heavy}", *COSTS, "-o", "{out}", "--tau", "0.5"], "go together"),
    (["fit", "{light}", "{heavy}", *COSTS, "-o", "{out}", "--tau", "0.5", "--delta", "0", "--budget", "1"],
     "control how delta and tau"),
    (["fit", "{light}", "{heavy}", *COSTS, "-o", "{out}", "--tau", "2", "--delta", "0"], "delta or tau"),
    (["fit", "{light}", "{heavy}", *COSTS, "-o", "{out}", "--states", "90-99"], "too few|no episode"),
    (["fit", "{light}", "{heavy}", *COSTS, "-o", "{out}", "--states", "9-1"], "not a range"),
    (["show", "{light}"], "cannot read the routing table"),
    (["show", "{out}", "{out}"], "one table"),
    (["show", "{out}", "--tau", "0.5"], "belongs to fit"),
    (["decide", "{out}"], "no instruction to decide"),
])
def test_what_is_wrong_is_said_in_four_lines(cli, logs, tmp_path, argv, what):
    import re

    places = {"light": logs[0], "heavy": logs[1], "out": str(tmp_path / "t.json")}
    code, out, err = cli("route", *(a.format(**places) for a in argv))
    assert code == 3 and not out and re.search(what, err) and "fix:" in err, err
    assert not list(tmp_path.glob("t.*"))


def test_nothing_of_this_needs_torch(logs, tmp_path):
    import subprocess
    import sys

    argv = ["route", "fit", *logs, *COSTS, "-o", str(tmp_path / "a.json")]
    program = (f"import sys; from vlacompile.cli.main import main; assert main({argv!r}) == 0; "
               "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
