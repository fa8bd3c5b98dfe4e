"""`vlacompile completion`: asked of the shells themselves."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

from vlacompile.cli.completion import SHELLS
from vlacompile.cli.main import VERBS

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_vlacompile "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
ANSWER_S = 30.0


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """{shell: its script}"""
    pytest.importorskip("shtab", reason="pip install shtab")
    folder = tmp_path_factory.mktemp("completion")
    found = {}
    for shell in SHELLS:
        found[shell] = folder / shell / "_vlacompile"
        found[shell].parent.mkdir()
        with found[shell].open("w") as out:
            subprocess.run([sys.executable, "-m", "vlacompile.cli.main", "completion", shell], stdout=out, check=True)
    return found


def ask(shell: str, scripts, line: str, folder) -> set[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"apt-get install {shell}")
    if shell == "bash":
        done = subprocess.run(["bash", "-c", BASH, "bash", scripts[shell], *line.split(" ")], capture_output=True,
                              text=True, check=True, cwd=folder)
        return {word.rstrip("/ ") for word in done.stdout.splitlines()}
    if shell == "fish":
        done = subprocess.run(["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', scripts[shell],
                               line], capture_output=True, text=True, check=True, cwd=folder)
        return {row.partition("\t")[0].rstrip("/") for row in done.stdout.splitlines()}
    return ask_zsh(scripts[shell].parent, line, folder)


def ask_zsh(functions, line: str, folder) -> set[str]:
    """Types the line and Tab twice into an interactive shell, and takes the words that it shows."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-f", "-i"], os.environ | {"TERM": "dumb", "COLUMNS": "200"})
    try:
        typed = (f"fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; "
                 "LISTMAX=1000; PS1='> '; print read''y\n")
        os.write(terminal, typed.encode())
        read_until(terminal, "ready\r\n")
        os.write(terminal, f"{line}\t\t\x01\x0becho done''here\n".encode())  # to the begin of the line, which is cut
        shown = read_until(terminal, "donehere")
    finally:
        os.close(terminal)
        os.waitpid(process, 0)
    words = shown.replace("\r", " ").replace("\x07", " ").replace("\t", " ").split()
    return {word.rstrip("/") for word in words}


def read_until(terminal: int, words: str) -> str:
    seen, end = "", time.monotonic() + ANSWER_S
    while words not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


@pytest.mark.parametrize("shell", SHELLS)
def test_verbs(scripts, shell, tmp_path):
    assert {"build", "doctor", "inspect"} & ask(shell, scripts, "vlacompile ", tmp_path) == {"build", "doctor",
                                                                                            "inspect"}
    assert "build" in ask(shell, scripts, "vlacompile bu", tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_options_of_the_verb_alone(scripts, shell, tmp_path):
    found = ask(shell, scripts, "vlacompile run --", tmp_path)
    assert {"--frames", "--repeat"} <= found and "--calibrate" not in found


@pytest.mark.parametrize("shell", SHELLS)
def test_names_of_targets_and_environments(scripts, shell, tmp_path):
    found = ask(shell, scripts, "vlacompile build --target orin-n", tmp_path)
    assert {"orin-nano-8gb", "orin-nx-16gb"} <= found and "host" not in found
    assert "lerobot061" in ask(shell, scripts, "vlacompile frontends --install ", tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_bundles_are_folders(scripts, shell, tmp_path):
    (tmp_path / "pick.vlab").mkdir()
    (tmp_path / "picture.png").write_text("")
    found = ask(shell, scripts, "vlacompile inspect pic", tmp_path)
    assert "pick.vlab" in found and "picture.png" not in found


def test_it_is_printed_alone(cli, scripts):
    code, out, _ = cli("completion", "bash")
    assert code == 0 and out == scripts["bash"].read_text() and all(verb in out for verb in VERBS)


def test_without_shtab(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, err = cli("completion", "fish")
    assert code == 3 and "pip install shtab" in err
