"""How NVIDIA's headers are got: of one commit, the files that are wanted, and words where there is none. No network."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.runtime_c import nvidia_headers
from vlart.errors import SourceError


@pytest.fixture
def repository(tmp_path) -> tuple[Path, str]:
    """A clone, and its first commit of two."""
    path = tmp_path / "clone"
    git = ["git", "-C", str(path), "-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    (path / "include/impl").mkdir(parents=True)
    commits = []
    for version in (1, 2):
        for name in ("include/a.h", "include/impl/b.h", "samples/c.cpp", "large.bin"):
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(f"{name} {version}")
        subprocess.run(["git", "init", "-q", str(path)], check=True)
        for command in (["add", "."], ["commit", "-q", "-m", str(version)]):
            subprocess.run([*git, *command], check=True)
        commits.append(subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True,
                                      text=True).stdout.strip())
    return path, commits[0]


def test_of_one_commit_what_is_wanted(repository, tmp_path):
    path, commit = repository
    out = tmp_path / "out"
    out.mkdir()
    nvidia_headers.sources(f"file://{path}", commit, {"include": ".", "samples/c.cpp": "c.cpp"}, out)
    found = {str(p.relative_to(out)): p.read_text() for p in out.rglob("*") if p.is_file()}
    assert found == {"a.h": "include/a.h 1", "impl/b.h": "include/impl/b.h 1", "c.cpp": "samples/c.cpp 1"}


@pytest.mark.parametrize("there", [True, False])
def test_what_cannot_be_had_is_told(repository, tmp_path, there):
    where = f"file://{repository[0]}" if there else f"file://{tmp_path}/absent"
    with pytest.raises(SourceError, match="commit 0123456789ab cannot be had") as caught:
        nvidia_headers.sources(where, "0123456789ab" + "0" * 28, {"include": "."}, tmp_path)
    assert caught.value.where == where and "fatal:" in caught.value.why and "--help" in caught.value.fix


def test_versions_are_those_that_the_tests_name():
    from tests.runtime_c.test_tensorrt_libraries import VERSIONS

    file = Path(__file__).parents[1] / "compiler/emit/tensorrt/trtexec_options.json"
    known = json.loads(file.read_text(encoding="utf-8"))["commits"]
    assert [w.software for w in nvidia_headers.WANTED] == VERSIONS
    assert {w.software.tensorrt: w.sources[0][1] for w in nvidia_headers.WANTED} == known
