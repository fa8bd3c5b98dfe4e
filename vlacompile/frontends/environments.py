"""Isolated Python environments for frontends whose packages have conflicting version pins.

An environment has its own packages, and links to those that the compiler needs from the environment that created it
(PyTorch is a gigabyte); nothing else of that environment is visible. It is a folder inside it and is deleted with it.
`vlacompile frontends --install NAME` creates it, `vlacompile build` uses it automatically,
`python -m vlacompile.frontends.environments NAME` prints its interpreter.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlacompile.errors import SourceError


class NeedsEnvironment(SourceError):
    """The current interpreter lacks the packages of an environment."""

    def __init__(self, environment: Environment, what: str, **words: str):
        super().__init__(what, **words)
        self.environment = environment


@dataclass(frozen=True)
class Environment:
    """package, version: their presence identifies the environment. packages: exact versions, installed without
    dependencies. summary: one line for a person."""

    name: str
    package: str
    version: str
    summary: str
    packages: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path(sys.prefix) / "environments" / self.name

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    def advice(self) -> str:
        return f"vlacompile frontends --install {self.name}  ({self.summary})"

    def is_here(self) -> bool:
        return self._found() == self.version

    def require(self) -> None:
        """Raises NeedsEnvironment if the current interpreter does not have the packages."""
        if not self.is_here():
            raise NeedsEnvironment(self, f"{self.package} is needed to read this checkpoint",
                                   where="this Python environment",
                                   why=f"{self.package} is {self._found()}; the frontend is written for {self.version}",
                                   fix=self.advice())

    def _found(self) -> str:
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    def is_installed(self) -> bool:
        return (self.path / "complete").is_file()

    def install(self, progress: Callable[[str], None] = lambda phase: None, also: tuple[str, ...] = ()) -> None:
        """also: further packages of the creating environment to link. Raises SourceError; an incomplete environment is
        created again the next time."""
        progress(f"create {self.path}")
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            venv.create(self.path, with_pip=True, symlinks=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SourceError(f"the environment {self.name} cannot be created", where=str(self.path), why=str(error),
                              fix="run vlacompile from a virtual environment that is writable") from error
        own = {p.split("==")[0].lower().replace("_", "-") for p in self.packages}
        for entry in linked_entries(("vlacompile", *also), own):
            (self.site_packages() / entry.name).symlink_to(entry)
        progress(f"install {len(self.packages)} packages")
        command = [str(self.python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps",
                   *self.packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SourceError(f"the environment {self.name} cannot be created", where=str(self.path),
                              why=(done.stderr.strip().splitlines() or ["pip failed"])[-1],
                              fix="check the network and the package index, then run it again")
        (self.path / "complete").touch()

    def site_packages(self) -> Path:
        return self.path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def linked_entries(roots: tuple[str, ...], without: set[str]) -> list[Path]:
    """Files and folders of `roots` and all their dependencies, in the site-packages of the creating environment."""
    from packaging.requirements import Requirement

    entries: set[Path] = set()
    pending, seen = list(roots), {*without, "pip", "setuptools"}  # venv provides these
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = next(iter(importlib.metadata.distributions(name=name, path=site.getsitepackages())))
        tops = {Path(f).parts[0] for f in distribution.files or () if Path(f).parts[0] not in ("..", "__pycache__")}
        entries |= {Path(str(distribution.locate_file(top))) for top in tops}
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                pending.append(needed.name.lower().replace("_", "-"))
    return sorted(e for e in entries if e.exists())


ENVIRONMENTS = {
    "lerobot": Environment("lerobot", "lerobot", "0.4.4", "LeRobot 0.4.4 and what its model code needs", (
        "torchvision==0.28.0", "lerobot==0.4.4", "draccus==0.10.0", "mergedeep==1.3.4", "mypy_extensions==1.2.0",
        "pyyaml-include==1.4.1", "PyYAML==6.0.3", "toml==0.10.2", "typing-inspect==0.9.0", "huggingface-hub==0.35.3",
        "requests==2.32.5", "urllib3==2.5.0", "certifi==2025.10.5", "charset-normalizer==3.4.4", "idna==3.11",
        "safetensors==0.8.0", "einops==0.8.2", "packaging==25.0", "transformers==4.57.6", "tokenizers==0.22.2",
        "regex==2025.11.3", "diffusers==0.35.2", "importlib_metadata==8.7.0", "zipp==3.23.0", "num2words==0.5.14",
        "docopt==0.6.2", "pillow==12.0.0", "tqdm==4.67.1")),
    "huggingface": Environment("huggingface", "transformers", "5.23.0", "transformers 5.23 and what it needs", (
        "transformers==5.23.0", "huggingface-hub==2.4.0", "tokenizers==0.23.3", "safetensors==0.8.0",
        "regex==2026.11.15",
        "PyYAML==6.0.3", "hf-xet==1.8.0", "httpx2==2.16.2", "httpcore2==2.16.2", "h11==0.16.0", "anyio==4.16.0",
        "idna==3.20", "truststore==0.10.5", "pydantic==2.14.3", "pydantic_core==2.50.4", "annotated-types==0.8.0",
        "typing-inspection==0.4.5", "typer==0.29.2", "annotated-doc==0.0.7", "click==8.5.1", "shellingham==1.5.4",
        "tqdm==4.70.1", "packaging==26.3")),
}


if __name__ == "__main__":
    print(ENVIRONMENTS[sys.argv[1]].python)
