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

from vlart.errors import SourceError
from vlart.files.atomic import write_whole


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
        """Inside the environment that created it, also as seen from another that it created."""
        here = Path(sys.prefix)
        return (here.parent if here.parent.name == "environments" else here / "environments") / self.name

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
        return self._complete().is_file()

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
        self._link("vlacompile", *also)
        progress(f"install {len(self.packages)} packages")
        self._pip("cannot be created", *self.packages)
        write_whole(self._complete(), "\n".join(self.packages).encode())

    def is_current(self) -> bool:
        """Whether it is installed, with these very packages."""
        return self.is_installed() and self._complete().read_text(encoding="utf-8") == "\n".join(self.packages)

    def _complete(self) -> Path:
        return self.path / "complete"

    def add(self, packages: tuple[str, ...], progress: Callable[[str], None] = lambda phase: None) -> None:
        """Makes further packages visible there, without what they require in versions of their own: those that are
        installed in the creating environment are linked with what they need, others (a requirement, a directory, a
        wheel) are installed. Raises SourceError."""
        for package in packages:
            progress(f"add {package}")
            if next(iter(importlib.metadata.distributions(name=package, path=site.getsitepackages())), None):
                self._link(package)
            else:
                self._pip(f"cannot get {package}", package)

    def _link(self, *roots: str) -> None:
        own = {p.split("==")[0].lower().replace("_", "-") for p in self.packages}
        for entry in linked_entries(roots, own):
            there = self.site_packages() / entry.name
            if not there.exists():
                there.symlink_to(entry)

    def _pip(self, failed: str, *packages: str) -> None:
        command = [str(self.python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps",
                   "--ignore-requires-python", *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SourceError(f"the environment {self.name} {failed}", where=str(self.path),
                              why=(done.stderr.strip().splitlines() or ["pip failed"])[-1],
                              fix="check the name, the network and the package index, then run it again")

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
        distribution = next(iter(importlib.metadata.distributions(name=name, path=site.getsitepackages())), None)
        if distribution is None:  # what a linked package requires and this environment lacks
            continue
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
    "lerobot061": Environment("lerobot061", "lerobot", "0.6.1", "LeRobot 0.6.1 and what its model code needs", (
        "torchvision==0.28.0", "lerobot==0.6.1", "draccus==0.11.6", "mergedeep==1.3.4", "mypy_extensions==1.2.0",
        "PyYAML==6.0.3", "toml==0.10.2", "typing-inspect==0.9.0", "huggingface-hub==1.33.0", "hf-xet==1.8.0",
        "httpx==0.28.1", "httpcore==1.0.9", "h11==0.16.0", "anyio==4.16.0", "requests==2.32.5", "urllib3==2.5.0",
        "certifi==2025.10.5", "charset-normalizer==3.4.4", "idna==3.11", "safetensors==0.8.0", "einops==0.8.2",
        "packaging==25.0", "termcolor==3.3.0", "transformers==5.5.4", "tokenizers==0.22.2", "regex==2025.11.3",
        "typer==0.29.2", "annotated-doc==0.0.7", "click==8.5.1", "shellingham==1.5.4", "lazy-importer==0.1.0",
        "diffusers==0.38.0", "importlib_metadata==8.7.0", "zipp==3.23.0", "num2words==0.5.14", "docopt==0.6.2",
        "pillow==12.0.0", "tqdm==4.67.1", "peft==0.21.0", "accelerate==1.15.0", "psutil==7.2.2", "gymnasium==1.4.0",
        "farama-notifications==0.0.6", "cloudpickle==3.1.3")),
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
