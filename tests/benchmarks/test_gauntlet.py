"""The gauntlet's runner on originals made here: what is right, wrong, refused or broken is reported as that."""

from __future__ import annotations

import json
import subprocess
from textwrap import dedent

import pytest

from benchmarks.gauntlet.__main__ import main
from benchmarks.gauntlet.measure import measure
from benchmarks.gauntlet.original import GLUE, count_lines, read_glue, state_of

# One file of somebody's repository; `absent` is a package that inference never calls.
ORIGINAL = """
    import torch
    import absent.training as training
    from absent import Trainer

    class Reach(torch.nn.Module):
        @training.logged(every=10)
        def __init__(self):
            super().__init__()
            self.eye, self.head = torch.nn.Linear(12, 8), torch.nn.Linear(18, 4 * 3)
        def act(self, image, state):
            seen = self.eye(image.flatten(2)).flatten(1)
            return self.head(torch.cat([seen, state], 1)).view(-1, 4, 3)
"""
GLUE_TEXT = '''
    """What stands above the statement is not counted."""
    import torch
    import vlacompile as vc
    from benchmarks.gauntlet.importing import importable
    from benchmarks.gauntlet.original import Original

    ORIGINAL = Original("Reach", "somebody/reach", "0" * 40, "")

    def make(checkout):
        """Nor is this."""
        with importable(checkout, stubs=("absent",)):
            import sys
            sys.modules.pop("reach", None)
            from reach import Reach
            {before}
            policy = Reach().eval()
        # nor this

        def infer(image, state):
            {inside}
            return {{"action": policy.act(image, state){after}}}
        return vc.Policy("reach", infer, {{"image": vc.Source("observation", history=2), "state": vc.Source("task")}},
                         {{"image": torch.rand(1, 2, 3, 4), "state": torch.rand(1, 2)}})
'''


@pytest.fixture
def glue(tmp_path):
    """glue(before=, inside=, after=): a glue file around the original, with these pieces of code in it."""
    folder = tmp_path / "checkouts" / "reach"
    folder.mkdir(parents=True)
    (folder / "reach.py").write_text(dedent(ORIGINAL), encoding="utf-8")

    def written(before="pass", inside="pass", after=""):
        file = tmp_path / "glue" / "reach.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(dedent(GLUE_TEXT).format(before=before, inside=inside, after=after), encoding="utf-8")
        return read_glue(file)

    return written


def row_of(glue, tmp_path) -> dict:
    return measure(glue, tmp_path / "checkouts" / "reach", tmp_path, progress=lambda text: None)


def test_an_original_that_is_compiled_right_is_equal(glue, tmp_path):
    row = row_of(glue(), tmp_path)
    assert row["result"] == "equal" and row["share"] < 1e-5 and row["without_effect"] == []
    assert [s["stage"] for s in row["stages"]] and row["build_s"] > 0 and row["glue_lines"] == 12
    assert row["compared"] == 3 * (1 + 2)  # per round: both sources, then each alone


@pytest.mark.parametrize(("pieces", "result", "message"), [
    # negative controls: the module made for the comparison has other weights, a bundle of one output column is off
    ({"before": "torch.seed()"}, "differs", None),
    ({"before": "import builtins; builtins.made = getattr(builtins, 'made', 0) + 1",
      "after": " + 1e-3 * (__import__('builtins').made > 1)"}, "differs", None),
    ({"inside": "assert state.sum() < 100"}, "refused", "decides what is computed"),
    ({"before": "raise KeyError('weights')"}, "failed", "KeyError: 'weights'"),
    ({"after": " * 0"}, "failed", "no source changes any output"),
], ids=["other-weights", "slightly-off", "branch", "import", "shows-nothing"])
def test_what_is_not_equal_is_reported_as_what_it_is(glue, tmp_path, monkeypatch, pieces, result, message):
    monkeypatch.setattr("builtins.made", 0, raising=False)
    row = row_of(glue(**pieces), tmp_path)
    assert row["result"] == result, row
    if message is None:
        assert row["share"] > 1e-4
    else:
        assert message in row["message"]
    assert result != "refused" or all(f"{word}:" in row["message"] for word in ("where", "why", "fix"))


def test_each_original_runs_in_a_process_of_its_own(glue, tmp_path, monkeypatch, capsys):
    glue()
    (tmp_path / "glue" / "missing.py").write_text(
        (tmp_path / "glue" / "reach.py").read_text(encoding="utf-8").replace("somebody/reach", "somebody/gone"),
        encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main([str(tmp_path / "checkouts"), "--glue", str(tmp_path / "glue"), "--record"]) == 0
    said = capsys.readouterr().out
    assert "Reach: equal" in said and "git clone https://github.com/somebody/gone" in said
    rows = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / "profiles/gauntlet").glob("*.json")}
    assert rows["reach"]["checkouts"] == {"reach": "no git checkout"} and rows["missing"]["result"] == "absent"
    assert "trace" not in rows["reach"] and rows["reach"]["machine"]
    glue(before="torch.seed()")
    assert main([str(tmp_path / "checkouts"), "--glue", str(tmp_path / "glue"), "--only", "reach"]) == 1


def test_a_checkout_says_how_it_differs_from_the_stated_commit(tmp_path):
    def git(*words):
        return subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
                              check=True, capture_output=True, text=True).stdout.strip()

    assert state_of(tmp_path, "0" * 40) == "no git checkout"
    git("init", "-q")
    (tmp_path / "a.py").write_text("one = 1\n", encoding="utf-8")
    git("add", "a.py")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD")
    assert state_of(tmp_path, head) == "as stated" and state_of(tmp_path, "0" * 40) == f"at {head}"
    (tmp_path / "a.py").write_text("one = 2\n", encoding="utf-8")
    assert state_of(tmp_path, head) == "1 files changed"


def test_shipped_glue_states_repository_commit_and_lines():
    files = sorted(GLUE.glob("[!_]*.py"))
    every = [read_glue(file) for file in files]
    assert len(every) >= 12 and len({g.original.name for g in every}) == len(every)
    for found in every:
        assert len(found.original.commit) == 40 and found.original.repository.count("/") == 1
        assert 0 < found.lines <= 60, found.key
        assert all(line.startswith("git clone https://github.com/") for line in found.original.clone().splitlines())


def test_lines_are_counted_without_prose():
    assert count_lines('"""Head."""\nimport a\nORIGINAL = 1\n\n# a comment\ndef f():\n    """Doc\n    string."""\n'
                       '    return (\n        1)\n') == 3
