"""The command line: help, text in 80 columns, JSON, progress, and that nothing slow runs for nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from vlacompile.cli.main import VERBS, main
from vlacompile.phases.phase import Phase

TINY = "tests.samples.cli_policies:tiny"


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "tiny.vlab"
    assert main(["build", TINY, "-o", str(out)]) == 0
    return out


def narrow(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80, max(text.splitlines(), key=len)


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:\n  vlacompile " in text and "\nnext: " in text and "--json" in text
    narrow(text)


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {verb} " in text for verb in VERBS) and "exit codes:" in text
    narrow(text)


def test_no_verb_prints_help_and_fails(cli):
    code, out, err = cli()
    assert code == 2 and not out and "VERB" in err


def test_version(cli):
    code, out, _ = cli("--version")
    assert code == 0 and out.startswith("vlacompile ")


@pytest.mark.parametrize("argv", [["targets"], ["recipes", "libero-goal"], ["build", "x:y", "--target", "hots"],
                                  ["build", "no/such/directory"], ["inspect", "no.vlab"], ["biuld"]])
def test_answers_without_importing_torch(argv):
    program = f"import sys; from vlacompile.cli.main import main; main({argv!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_module_is_lazy_and_verify_is_the_function():
    program = ("import sys, vlacompile as vc; assert 'torch' not in sys.modules\n"
               "from vlart.verify.metrics import compare\n"
               "assert callable(vc.verify) and vc.verify.__name__ == 'verify', vc.verify\n"
               "for name in vc.__all__: assert getattr(vc, name) is not None and name in dir(vc)")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_build_prints_progress_then_one_table(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("build", TINY, "-o", "here.vlab")
    assert code == 0 and (tmp_path / "here.vlab" / "plan.bin").is_file()
    lines = [line.split() for line in err.splitlines()]
    told = [words[0] for words in lines[1:]]
    assert told == [p for p in map(str, Phase) if p in told], "one line per phase, however many steps"
    assert {"read-inputs", "capture", "find-stages", "publish"} <= {*told}
    assert all(words[-1] == "s" for words in lines)
    assert "stage" in out and "depends on" in out and "parity   action: max_abs" in out
    assert "bundle   here.vlab" in out
    narrow(out), narrow(err)


def test_progress_is_live_on_a_terminal(tmp_path):
    """A terminal of 80 columns: the running phase is redrawn, and the result still reaches stdout."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "vlacompile.cli.main", "build", TINY, "-o", tmp_path / "a.vlab"]
    process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env={**os.environ, "TERM": "xterm"})
    os.close(inside)
    seen = b""
    with contextlib.suppress(OSError):  # how a pty says that its other end has closed
        while data := os.read(terminal, 65536):
            seen += data
    os.close(terminal)
    assert process.wait() == 0
    steps = (b"load the compiler", b"trace the inference function", b"compare with the policy")
    assert max(map(seen.count, steps)) > 2 and b"parity   action" in seen


def test_build_names_the_bundle_after_the_policy(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("build", TINY, "--json")
    document = json.loads(out)
    assert code == 0 and "find-stages" in err
    assert (tmp_path / "tiny.vlab" / "plan.bin").is_file() and document["bundle"] == str(tmp_path / "tiny.vlab")
    assert document["parity"]["passed"] and document["stages"][0]["flops"] > 0
    assert set(document["seconds"]) >= {"read-inputs: load the policy", "publish: replay it through libvlart"}


def test_inspect_text(cli, late_fusion_bundle, golden):
    code, out, _ = cli("inspect", late_fusion_bundle.path)
    assert code == 0
    narrow(out)
    stable, _, provenance = out.partition("Built from\n")
    golden("inspect_late_fusion.txt", "\n".join(line.rstrip() for line in stable.splitlines()) + "\n")
    assert "weights" in provenance and "torch" in provenance and "parity" in provenance


def test_inspect_plan_is_the_plan_text(cli, late_fusion_bundle):
    code, out, _ = cli("inspect", late_fusion_bundle.path, "--plan")
    assert code == 0 and out == (late_fusion_bundle.path / "plan.txt").read_text()


def test_inspect_json(cli, late_fusion_bundle):
    code, out, _ = cli("inspect", late_fusion_bundle.path, "--json")
    document = json.loads(out)
    assert code == 0 and document["hash"] == late_fusion_bundle.hash
    assert sum(s["flops_share"] for s in document["dependency_sets"]) == pytest.approx(1)
    assert sum(s["weight_share"] for s in document["dependency_sets"]) == pytest.approx(1)
    changes = {row["source"]: row for row in document["changes"]}
    for row in changes.values():
        assert set(row["runs"]).isdisjoint(row["kept"])
    assert "language" in changes["observation.images.base"]["kept"]
    assert all(row["read_by"] for row in document["kept"])


def test_verify(cli, late_fusion_bundle):
    code, out, _ = cli("verify", late_fusion_bundle.path)
    narrow(out)
    assert code == 0 and "action" in out and "values pass over" in out
    code, out, _ = cli("verify", late_fusion_bundle.path, "--json", "--threads", 1)
    document = json.loads(out)
    assert code == 0 and document["passed"] and document["runs"]["language"] < document["frames"]


def test_run(cli, flow_bundle, tmp_path):
    code, out, _ = cli("run", flow_bundle.path, "--threads", 1)
    narrow(out)
    assert code == 0 and "step: median" in out and "action [1, 10, 7] of the last frame" in out
    frames = tmp_path / "copy.frames"
    frames.write_bytes((flow_bundle.path / "golden" / "golden.bin").read_bytes())
    code, out, _ = cli("run", flow_bundle.path, "--frames", frames, "--repeat", 3, "--json")
    document = json.loads(out)
    assert code == 0 and document["repeat"] == 3 and document["shape"] == [1, 10, 7]
    assert all(s["steps"] == 3 * document["frames"] for s in document["stages"].values())


@pytest.mark.parametrize("verb,name", [("targets", "host"), ("recipes", "default")])
def test_listings(cli, golden, verb, name):
    code, out, _ = cli(verb)
    assert code == 0 and name in out
    narrow(out)
    code, out, _ = cli(verb, "--json")
    assert code == 0 and name in [row["name"] for row in json.loads(out)[verb]]
    code, out, _ = cli(verb, name, "--json")
    assert code == 0 and json.loads(out)["name"] == name


def test_recipe_resolved(cli, golden):
    _code, out, _ = cli("recipes", "libero-goal")
    golden("recipe_libero_goal.txt", "\n".join(line.rstrip() for line in out.splitlines()) + "\n")


def test_json_has_no_infinity(capsys):
    from vlacompile.cli.terminal import Terminal

    terminal = Terminal(as_json=True)
    terminal.show({"a": float("inf"), "b": [float("nan"), 1.5]}, lambda console: None)
    terminal.finish()
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5]}


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_output_that_the_shell_has_closed(closed):
    command = f"{sys.executable} -m vlacompile.cli.main completion bash {closed}"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 0


def test_a_reader_that_leaves_is_no_error(tiny_bundle):
    command = f'"{sys.executable}" -m vlacompile.cli.main inspect "{tiny_bundle}" --plan | head -c 1 > /dev/null'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Error" not in done.stderr


@pytest.mark.parametrize("installed", [True, False])
def test_a_factory_gets_the_environment_that_it_asks_for(cli, monkeypatch, installed):
    from vlacompile.cli import sources
    from vlacompile.frontends.environments import ENVIRONMENTS, Environment

    calls = []
    monkeypatch.setattr(Environment, "is_installed", lambda self: installed)
    monkeypatch.setattr(Environment, "is_here", lambda self: False)
    monkeypatch.setattr(sources.subprocess, "call", lambda command: calls.append(command) or 0)
    argv = ["build", "tests.samples.cli_policies:needs_transformers", "-o", "never.vlab"]
    if installed:
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
        assert calls == [[ENVIRONMENTS["huggingface"].python, "-m", "vlacompile.cli.main", *argv]]
    else:
        code, _, err = cli(*argv)
        assert code == 4 and not calls and "vlacompile frontends --install huggingface" in err


def test_inspect_says_what_a_loop_lost(cli, tmp_path):
    (tmp_path / "r.toml").write_text('name = "r"\ndescription = ""\n[loop]\nmax_action_error = 0.6\nform = "steps"\n',
                                     encoding="utf-8")
    code, _, err = cli("build", "tests.samples.policies:flow", "-r", tmp_path / "r.toml", "-o", tmp_path / "f.vlab")
    assert code == 0, err
    code, out, _ = cli("inspect", tmp_path / "f.vlab")
    text = " ".join(out.split())
    assert code == 0 and "of 4 iterations by" in text and "0.6 allowed" in text
    narrow(out)
    loops = json.loads(cli("inspect", tmp_path / "f.vlab", "--json")[1])["loops"]
    assert loops[0]["written"] == 4 and 0 < loops[0]["error"] <= 0.6
