"""Python packages: which are installed, in which versions, and whether they can be imported.

Each is imported by a process of its own: one that crashes or hangs is a finding, not the end. Which versions are wanted
comes from the installed metadata, so pyproject.toml alone says it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vlacompile.doctor.finding import BROKEN, HERE, MISSING, OTHER, Finding

IMPORT_S = 120.0  # PyTorch from a slow disk
DISTRIBUTION, RUNTIME = "vlacompile", "vlacompile-runtime"


@dataclass(frozen=True)
class Package:
    """distribution: as pip spells it. module: what is imported. extra: of vlacompile, "" for what always comes."""

    distribution: str
    module: str
    uses: tuple[str, ...]
    extra: str = ""


EVERY = ("every verb",)
PACKAGES = (
    Package("torch", "torch", ("build", "plan")),
    Package("numpy", "numpy", ("build", "plan", "inspect", "verify", "run", "serve", "profile", "report", "route")),
    Package("onnx", "onnx", ("build", "check")),
    Package("onnx-ir", "onnx_ir", ("build",)),
    Package("onnxscript", "onnxscript", ("build",)),
    Package("onnxruntime", "onnxruntime", ("build", "verify", "run", "serve", "route")),
    Package("networkx", "networkx", ("build", "plan")),
    Package("scipy", "scipy", ("build",)),
    Package("rich", "rich", EVERY),
    Package("jinja2", "jinja2", ("report",)),
    Package("safetensors", "safetensors", ("build of a checkpoint",)),
    Package("packaging", "packaging", ("frontends --install",)),
    Package("shtab", "shtab", ("completion",)),
    Package("websockets", "websockets", ("serve",), "serve"),
    Package("msgpack", "msgpack", ("serve",), "serve"),
    Package("grpcio", "grpc", ("serve --protocol lerobot",), "serve"),
    Package("protobuf", "google.protobuf", ("serve --protocol lerobot",), "serve"),
    Package("tokenizers", "tokenizers", ("build with a tokenizer",), "text"),
    Package("huggingface_hub", "huggingface_hub", ("build by a name on the Hub",), "hub"),
    Package("pyarrow", "pyarrow", ("build --calibrate",), "dataset"),
    Package("av", "av", ("build --calibrate",), "dataset"),
    Package("pillow", "PIL", ("build --calibrate",), "dataset"),
    Package("mcap", "mcap", ("export --mcap",), "recordings"),
    Package("rosbags", "rosbags", ("build --calibrate BAG",), "bags"),
    Package("mcap-ros2-support", "mcap_ros2", ("build --calibrate BAG",), "bags"),
    Package("rerun-sdk", "rerun", ("view", "export --rerun"), "rerun"),
    Package("openvino", "openvino", ("build with stages of OpenVINO",), "openvino"),
    Package("apache-tvm", "tvm", ("build with stages.tvm",), "tvm"),
    Package("jetson-stats", "jtop", ("profile --measure on a Jetson",), "jetson"),
    Package("polygraphy", "polygraphy", ("bisect on a Jetson",), "jetson"),
    Package("cuda-bindings", "cuda.bindings.runtime", ("verify --through tensorrt",), "jetson"),
    Package("tensorrt-rtx-cu12", "tensorrt_rtx", ("check",), "rtx"),
)


def find_packages(packages: tuple[Package, ...] = PACKAGES) -> list[Finding]:
    wanted = requirements()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda package: find(package, wanted), packages))


def find(package: Package, wanted: Mapping[str, str]) -> Finding:
    """wanted: {distribution: version specifier}, as `requirements` gives it."""
    name = normal(package.distribution)
    specifier = wanted.get(name, "")
    install = f"pip install '{DISTRIBUTION}[{package.extra}]'" if package.extra else (
        f"pip install '{package.distribution}{specifier}'")
    try:
        version = importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return Finding(package.distribution, MISSING, package.uses, why="not installed", install=install)
    if failure := why_not_imported(package.module):
        again = f"pip install --force-reinstall '{package.distribution}{specifier or '==' + str(version)}'"
        return Finding(package.distribution, BROKEN, package.uses, str(version), failure, again)
    if not satisfies(str(version), specifier):
        return Finding(package.distribution, OTHER, package.uses, version, f"{specifier} is wanted", install)
    return Finding(package.distribution, HERE, package.uses, version)


def why_not_imported(module: str) -> str:
    """The last words of a process that imports it, "" if it could."""
    program = f"import importlib; importlib.import_module({module!r})"
    try:
        done = subprocess.run([sys.executable, "-P", "-W", "ignore", "-c", program], capture_output=True, text=True,
                              errors="replace", timeout=IMPORT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"import {module} takes longer than {IMPORT_S:g} s"
    except OSError as error:
        return f"no Python process can be started: {error}"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"import {module} crashes (signal {-done.returncode})"
    return (done.stderr.strip().splitlines() or [f"import {module} fails"])[-1].strip()


def requirements(distributions: tuple[str, ...] = (DISTRIBUTION, RUNTIME)) -> dict[str, str]:
    """{package: version specifier} of the distributions that are installed, and their extras."""
    texts: list[str] = []
    for distribution in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            texts += importlib.metadata.requires(distribution) or []
    found = {}
    for text in texts:
        if match := re.match(r"\s*([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)", text):
            found.setdefault(normal(match[1]), match[2].strip())
    return found


def satisfies(version: str, specifier: str) -> bool:
    """What cannot be compared, because `packaging` itself is missing, is taken as it is."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import InvalidVersion
    except ImportError:
        return True
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
