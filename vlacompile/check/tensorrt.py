"""Checks that NVIDIA's compiler accepts a bundle's stages and builds them as planned: weights, memory, fusions.

Owns the comparison of a plan's `build` records with the compiler's result. Nothing is run on a board, and no report of
this may claim otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from vlacompile.check.advice import advice, origin
from vlacompile.check.compile import Attempt, compile_stage, require_compiler
from vlacompile.check.rtx_log import Compiled, Kernel
from vlacompile.compiler.emit.onnx.fused_attention import fused_attentions
from vlacompile.compiler.emit.tensorrt.build_recipe import WEIGHTS_SLACK, int4_products, int8_products
from vlart.bundle.directory import Bundle, check_files, read_bundle
from vlart.bundle.plan.plan import Build, Stage
from vlart.errors import BundleError, EmitError

LABEL = ("accepted by NVIDIA's TensorRT-RTX parser and ahead-of-time compiler for SM86; not run on a board")
CHECKS_FOR = 87  # compute capability of boards that SM86 is near enough to
WEIGHTS_ALLOWANCE = 512 * 1024  # bytes of padding and of constants that the compiler folds, for any stage


@dataclass(frozen=True)
class Count:
    """A planned number and the one found in the engine. missing: names of the ONNX nodes that lack it."""

    what: str
    planned: int
    found: int
    missing: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.found >= self.planned


@dataclass(frozen=True)
class StageCheck:
    """refusal: why there is no engine. faults: differences from the plan, one line each."""

    stage: str
    compiler: str
    build: Build
    engine_bytes: int
    weight_bytes: int
    activation_bytes: int
    kernels: int
    counts: tuple[Count, ...]
    refusal: dict | None
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.refusal is None and not self.faults


@dataclass(frozen=True)
class BundleCheck:
    bundle: str
    policy: str
    target: str
    recipe: str
    stages: tuple[StageCheck, ...]

    @property
    def passed(self) -> bool:
        return all(s.passed for s in self.stages)

    def as_dict(self) -> dict:
        """Names, counts, bytes and versions; no paths."""
        return {"policy": self.policy, "target": self.target, "recipe": self.recipe, "label": LABEL,
                "passed": self.passed,
                "stages": [asdict(s) | {"passed": s.passed} for s in self.stages]}

    def require(self) -> BundleCheck:
        """Raises EmitError for the first stage that the compiler refuses, or else for the first that differs from the
        plan."""
        for s in sorted(self.stages, key=lambda s: s.refusal is None):
            if s.refusal is not None:
                r = s.refusal
                at = f', node "{r["node"]}"' if r["node"] else ""
                raise EmitError(f'TensorRT {_VERBS[r["kind"]]} the stage "{s.stage}"',
                                where=f'{self.bundle}, stage "{s.stage}"{at}'
                                + (f', {r["origin"]}' if r["origin"] else ""),
                                why=r["why"], fix=r["fix"])
            if s.faults:
                raise EmitError(f'the engine of "{s.stage}" is not what was planned',
                                where=f'{self.bundle}, stage "{s.stage}"',
                                why="; ".join(s.faults),
                                fix="see the stage's row with --json; a layer that is not fused can be given another "
                                "precision by a rule of the recipe")
        return self


_VERBS = {"rejected": "rejects", "not built": "does not build", "crashed": "crashes on", "timeout": "does not finish"}


def check_bundle(path: str | Path, *, seconds: float | None = None, python: str = sys.executable,
                 progress: Callable[[str], None] = lambda phase: None) -> BundleCheck:
    """Raises ConfigError if the compiler is not installed, BundleError for damage or a bundle without engines to build;
    the compiler's messages are in the result."""
    bundle = read_bundle(path)
    board = bundle.plan.board
    if board is not None and board.compute_capability != CHECKS_FOR:
        raise BundleError(f"bundles for sm_{board.compute_capability} are not checked", where=str(path),
                          why=f"the compiler makes SM86 here, which is near Orin's SM87 and not near {board.name}",
                          fix="build the engines on the machine itself: vlart-build BUNDLE")
    require_compiler(python)
    check_files(bundle)
    staged = [s for s in bundle.plan.stages if s.build is not None]
    if not staged:
        raise BundleError("the bundle has no TensorRT engines to build", where=str(path),
                          why=f'its target "{bundle.plan.target}" is not a board',
                          fix="build it for a board; `vlacompile targets` lists them")
    found = []
    for stage in staged:
        progress(f"compile {stage.name}")
        found.append(check_stage(bundle, stage, seconds, python))
    return BundleCheck(str(path), bundle.plan.name, bundle.plan.target, bundle.plan.recipe, tuple(found))


def check_stage(bundle: Bundle, stage: Stage, seconds: float | None, python: str) -> StageCheck:
    path = bundle.path / bundle.plan.files[stage.artefact].path
    attempt = compile_stage(path, python=python, **({} if seconds is None else {"seconds": seconds}))
    return judge(stage.name, stage.build, ir.load(path), attempt)


def judge(name: str, build: Build, model: ir.Model, attempt: Attempt) -> StageCheck:
    """The compiled engine compared with the plan."""
    if attempt.refusal is not None:
        r = attempt.refusal
        told = asdict(r) | {"origin": origin(model, r.node), "fix": advice(model, r)}
        return StageCheck(name, attempt.compiler, build, 0, 0, 0, 0, (), told, ())
    compiled = attempt.compiled
    counts = (Count("INT8 products", build.int8_gemms, *_computed(int8_products(model), compiled, _in_int8)),
              Count("fused INT4", build.int4_dequants, *_computed(int4_products(model), compiled, _in_int4)),
              Count("fused attentions", build.attentions, *_computed(fused_attentions(model), compiled, _attends)))
    return StageCheck(name, attempt.compiler, build, attempt.engine_bytes, compiled.weight_bytes,
                      compiled.activation_bytes, len(compiled.kernels), counts, None,
                      tuple(_faults(build, attempt.engine_bytes, compiled, counts)))


def _computed(products: tuple[ir.Node, ...], compiled: Compiled,
              good: Callable[[Kernel], bool]) -> tuple[int, tuple[str, ...]]:
    """(number of products that a kernel computes as planned, names of the others)"""
    there = frozenset().union(*(k.nodes for k in compiled.kernels if good(k)))
    missing = tuple(n.name for n in products if n.name not in there)
    return len(products) - len(missing), missing


def _in_int8(kernel: Kernel) -> bool:
    return "Int8" in kernel.inputs and "Int8" in kernel.inputs[1:] + kernel.constants


def _in_int4(kernel: Kernel) -> bool:
    return "Int4" in kernel.constants and any(t in kernel.inputs for t in ("Half", "Float", "BFloat16"))


def _attends(kernel: Kernel) -> bool:
    return kernel.attention


def _faults(build: Build, engine: int, compiled: Compiled, counts: Iterable[Count]):
    low = build.weight_bytes * (1 - WEIGHTS_SLACK) - WEIGHTS_ALLOWANCE
    high = build.weight_bytes * (1 + WEIGHTS_SLACK) + WEIGHTS_ALLOWANCE
    if not low <= compiled.weight_bytes <= high:
        yield f"its weights are {compiled.weight_bytes} bytes, planned were {build.weight_bytes}"
    if not build.engine_bytes_min <= engine <= build.engine_bytes_max:
        yield f"the engine has {engine} bytes, not {build.engine_bytes_min} to {build.engine_bytes_max}"
    if compiled.activation_bytes > build.activation_bytes:
        yield (f"it needs {compiled.activation_bytes} bytes of activations, "
               f"planned were at most {build.activation_bytes}")
    for c in counts:
        if not c.good:
            names = f": not {', '.join(c.missing[:3])}" + (", ..." if len(c.missing) > 3 else "") if c.missing else ""
            yield f"{c.found} of {c.planned} {c.what}{names}"


