"""What a glue file states about its original, how the file is read, and how the checkout is checked."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import vlacompile as vc

GLUE = Path(__file__).parent / "policies"


@dataclass(frozen=True)
class Original:
    """name: for the table. repository: "owner/name" on GitHub. commit: which the glue was written for. environment: one
    of environments.py; "" is the current interpreter. ranges: {source: how to draw it from a NumPy generator}, where
    random values within the example's range mean nothing. also: {repository: commit} of further checkouts that it
    imports. limit: the largest difference that counts as equal, as a share of the output's largest value; more where
    the original computes in 16 bits. note: what a reader of the table must know. shared: file of the glue beside it
    that several import; its lines count for each."""

    name: str
    repository: str
    commit: str
    environment: str = "gauntlet"
    ranges: dict[str, Callable] = field(default_factory=dict)
    also: dict[str, str] = field(default_factory=dict)
    limit: float = 1e-4
    note: str = ""
    shared: str = ""

    @property
    def folder(self) -> str:
        return self.repository.split("/")[1]

    @property
    def checkouts(self) -> dict[str, str]:
        """{folder: commit}"""
        return {name.split("/")[1]: commit for name, commit in ({self.repository: self.commit} | self.also).items()}

    def clone(self) -> str:
        """The commands that bring the checkouts, for a shell whose working directory is the folder of checkouts."""
        return "\n".join(f"git clone https://github.com/{name} && git -C {name.split('/')[1]} checkout {commit}"
                         for name, commit in ({self.repository: self.commit} | self.also).items())


@dataclass(frozen=True)
class Glue:
    """A glue file: its statement, its factory (the checkout's folder -> Policy), and its lines of code."""

    file: Path
    original: Original
    make: Callable[[Path], vc.Policy]
    lines: int

    @property
    def key(self) -> str:
        return self.file.stem


def read_glue(file: Path) -> Glue:
    """Imports the file, which imports nothing of the original before its `make` is called."""
    spec = importlib.util.spec_from_file_location(f"gauntlet_glue_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    files = [file, *([file.parent / module.ORIGINAL.shared] if module.ORIGINAL.shared else [])]
    return Glue(file, module.ORIGINAL, module.make, sum(count_lines(f.read_text(encoding="utf-8")) for f in files))


def count_lines(text: str) -> int:
    """Lines of code after the statement ORIGINAL = ..., without blank lines, comments and docstrings."""
    tree = ast.parse(text)
    start = next(node.end_lineno for node in tree.body if isinstance(node, ast.Assign)
                 and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ORIGINAL")
    prose = {line for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
             for line in range(node.lineno, node.end_lineno + 1)}
    return sum(number > start and number not in prose and line.strip() != "" and not line.strip().startswith("#")
               for number, line in enumerate(text.splitlines(), 1))


def state_of(checkout: Path, commit: str) -> str:
    """"as stated", or how the checkout differs from the stated commit."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    if not (checkout / ".git").exists() or (head := git("rev-parse", "HEAD")) is None:
        return "no git checkout"
    if head != commit:
        return f"at {head}"
    changed = git("diff", "--name-only", "--diff-filter=M", "HEAD", "--", "*.py")
    return f"{len(changed.split())} files changed" if changed else "as stated"
