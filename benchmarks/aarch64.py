"""The shipped policy on an emulated aarch64 processor, value by value: `make aarch64`.

    python -m benchmarks.aarch64 [--reuse] [--record]

Cross-compiles libvlart, runs its C tests in the emulator, builds the LIBERO-Goal policy in every precision, and replays
the golden vectors of each bundle there and on this machine. Then single layers, to show whose arithmetic differs and
how. The results go to build/aarch64/figures.json; with --record to profiles/qemu-aarch64/libero-goal.json. Latencies
are not kept: those of an emulator say nothing about a board.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import vlacompile as vc
from benchmarks.emulator import BUILD, CPU, ROOT, Emulator, emulator, engine_library
from vlacompile.cli.progress import Phases
from vlacompile.profile import machine
from vlart.bundle.directory import GOLDEN_FILE, read_bundle
from vlart.errors import ParityError, VlaError
from vlart.runtime.library import onnxruntime_library
from vlart.runtime.session import Session
from vlart.verify.frames import Expected, Frame, frames_bytes, read_frames
from vlart.verify.metrics import Metrics

FIGURES = BUILD / "figures.json"
RECORDED = ROOT / "profiles" / "qemu-aarch64" / "libero-goal.json"
VLART_RUN = ROOT / "build" / "runtime_c" / "vlart-run"
MUTATIONS = 500  # damaged files of each kind, besides the exhaustive sweep
MODES = {"fp32": "libero-goal", "int8": "libero-goal-int8", "int4": "libero-goal-int4", "fp16": "libero-goal-fp16"}
ANYTHING = Metrics(1e30, 1e30, -2.0)


@dataclass(frozen=True)
class Limit:
    """own: the bundle's own tolerance must hold too. rel_l2, cosine: limits for every value, in addition.
    why: for a person."""

    own: bool
    rel_l2: float
    cosine: float
    why: str


LIMITS = {
    "fp32": Limit(True, 1e-5, 0.99999, "the same sums in another order"),
    "int8": Limit(True, 1.0, 0.9, "the same integers; f32 in between in another order, so numbers between two steps go "
                  "the other way"),
    "int4": Limit(True, 1.0, 0.9, "as int8; sums of blocks in another order"),
    "fp16": Limit(False, 5e-2, 0.998, "ONNX Runtime's fp16 kernels for Arm add in fp16; on x86 it computes these "
                  "layers in f32, and so did the compiler when it set the bundle's own tolerance"),
}


@dataclass(frozen=True)
class Layer:
    """One layer as a policy. long: terms of its longest sum (reduction)."""

    name: str
    module: nn.Module
    example: torch.Tensor
    schemes: tuple[str, ...]
    long: int


class _Convolutions(nn.Module):
    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.b = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class _Linear(nn.Module):
    def __init__(self, k: int, n: int):
        super().__init__()
        self.net = nn.Linear(k, n)

    def forward(self, x):
        return self.net(x)


def layers() -> tuple[Layer, ...]:
    """Random weights and inputs, from fixed seeds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        every = ("int8", "int4", "fp16")
        return (
            Layer("linear 384 x 256, 1 row", _Linear(384, 256), torch.randn(1, 1, 384), ("int8", "int4"), 384),
            Layer("linear 384 x 256, 50 rows", _Linear(384, 256), torch.randn(1, 50, 384), every, 384),
            Layer("linear 1536 x 256, 50 rows", _Linear(1536, 256), torch.randn(1, 50, 1536), every, 1536),
            Layer("convolutions 3 x 3, 1 x 1", _Convolutions(32, 1), torch.randn(1, 32, 17, 17), ("int8", "fp16"), 288),
            Layer("depthwise 3 x 3, 1 x 1", _Convolutions(32, 32), torch.randn(1, 32, 17, 17), ("int8", "fp16"), 32),
        )


def build_layer(layer: Layer, scheme: str, folder: Path) -> Path:
    """A bundle of the layer in one precision, whatever its error."""
    place = folder / f"{layer.name}-{scheme}.vlab".replace(" ", "").replace(",", "-")
    recipe = place.with_suffix(".toml")
    folder.mkdir(parents=True, exist_ok=True)
    rule = f'[[precision.rule]]\nlayers = "*"\nscheme = "{scheme}"\n'
    recipe.write_text('name = "layer"\ndescription = "one layer"\n[stages]\nmin_flops = 0\n[precision]\n'
                      + ('base = "fp16"\nlayers = "fp16"\n' if scheme == "fp16" else rule), encoding="utf-8")
    module = layer.module.eval()
    policy = vc.Policy("layer", lambda x: {"action": module(x)}, {"x": vc.Source("observation")}, {"x": layer.example})
    vc.build(policy, recipe=str(recipe), out=place)
    return place


def host_frames(bundle: Path) -> bytes:
    """The bundle's frames with this machine's results as expected values."""
    frames = []
    with Session(bundle, threads=1) as session:
        for frame in read_frames(bundle / GOLDEN_FILE):
            for name, array in frame.writes.items():
                session.write(name, array)
            session.step(0)
            frames.append(Frame(frame.label, frame.writes,
                                {n: Expected(session.read(n), ANYTHING) for n in frame.expects}))
    return frames_bytes(frames)


def compare(machine_: Emulator, library: Path, bundle: Path) -> dict:
    """The worst difference of every value over the golden frames: emulated and on this host against the golden vectors,
    and emulated against this host."""
    frames = machine_.build.parent / "frames.bin"
    frames.write_bytes(host_frames(bundle))
    command = [VLART_RUN, bundle, "--ort", onnxruntime_library(), "--threads", "1", "--json", "--self-test"]
    here = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {"emulated": machine_.replay(bundle, library, "--self-test"), "host": json.loads(here.stdout),
             "apart": machine_.replay(bundle, library, "--self-test", "--frames", frames)}
    for name, report in found.items():
        if not report.get("values"):
            raise ParityError("a bundle cannot be replayed", where=f"{bundle.name}, {name}",
                              why=f"{report['what']}: {report['why']}", fix=report["fix"])
    values = {}
    for name, report in found.items():
        for v in report["values"]:
            row = {k: v[k] for k in ("max_abs", "rel_l2", "cosine")}
            allowed = {"failed": v["failed"], "allowed": {k: v[f"{k}_allowed"] for k in row}}
            values.setdefault(v["name"], {})[name] = row | ({} if name == "apart" else allowed)
    frames.unlink()
    return {"bundle": read_bundle(bundle).hash, "frames": found["emulated"]["values"][0]["frames"], "values": values}


def breaches(mode: str, found: dict) -> list[str]:
    """The values outside the mode's limit, one line each."""
    limit, lines = LIMITS[mode], []
    for name, row in found["values"].items():
        got = row["emulated"]
        if limit.own and got["failed"]:
            lines.append(f'{mode}: "{name}" is outside its own tolerance in {got["failed"]} frames: {got}')
        if not (got["rel_l2"] <= limit.rel_l2 and got["cosine"] >= limit.cosine):
            lines.append(f'{mode}: "{name}" has rel_l2 {got["rel_l2"]:.2g}, cosine {got["cosine"]:.6f}')
    return lines


def describe(machine_: Emulator) -> dict:
    compiler = subprocess.run(["aarch64-linux-gnu-gcc", "-dumpfullversion"], capture_output=True, text=True, check=True)
    return {"emulator": f"qemu-user {machine_.version()}, -cpu {CPU}", "compiler": f"gcc {compiler.stdout.strip()}",
            "host": machine.describe()}


def bundles(folder: Path, reuse: bool, progress=lambda phase: None) -> dict[str, Path]:
    """{mode: bundle of the light policy}"""
    from examples.libero_goal.policy import light

    found = {mode: folder / f"{recipe}.vlab" for mode, recipe in MODES.items()}
    for mode, path in found.items():
        if not (reuse and path.is_dir()):
            progress(f"build the policy in {mode}")
            path.parent.mkdir(parents=True, exist_ok=True)
            vc.build(light(), recipe=MODES[mode], out=path)
    return found


def measure(reuse: bool, progress) -> tuple[dict, list[str]]:
    """(figures, values outside a limit). Raises VlaError."""
    machine_, library = emulator(), engine_library()
    progress("cross-compile, and run the C tests in the emulator")
    machine_.make("all")
    machine_.make("test", f"MUTATIONS={MUTATIONS}")
    modes, outside = {}, []
    for mode, path in bundles(BUILD / "bundles", reuse, progress).items():
        progress(f"replay {mode} emulated")
        modes[mode] = {"limit": vars(LIMITS[mode])} | compare(machine_, library, path)
        outside += breaches(mode, modes[mode])
    rows = []
    for layer in layers():
        for scheme in layer.schemes:
            progress(f"{layer.name} in {scheme}")
            values = compare(machine_, library, build_layer(layer, scheme, BUILD / "layers"))["values"]["action"]
            rows.append({"layer": layer.name, "scheme": scheme, "longest_sum": layer.long} | values)
    return {"machine": describe(machine_), "modes": modes, "layers": rows}, outside


def text(figures: dict) -> str:
    lines = [f"{'relative L2 to the golden vectors':<34} {'emulated':>10} {'this host':>10} {'apart':>10}"]
    for mode, found in figures["modes"].items():
        for name in ("worst value between stages", "action"):
            rows = [v for n, v in found["values"].items() if (n == "action") == (name == "action")]
            worst = [max(v[k]["rel_l2"] for v in rows) for k in ("emulated", "host", "apart")]
            lines.append(f"{mode + ', ' + name:<34} " + " ".join(f"{w:10.1e}" for w in worst))
    lines += ["", f"{'single layers':<34}"]
    for row in figures["layers"]:
        cells = " ".join(f"{row[k]['rel_l2']:10.1e}" for k in ("emulated", "host", "apart"))
        lines.append(f"{row['scheme'] + ', ' + row['layer']:<34} {cells}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reuse", action="store_true", help="reuse bundles that are already in build/aarch64")
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/")
    arguments = parser.parse_args()
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    try:
        with Phases(console) as phases:
            figures, outside = measure(arguments.reuse, phases)
    except VlaError as error:
        console.print(f"error: {error}", soft_wrap=True)
        return error.exit_code
    path = RECORDED if arguments.record else FIGURES
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"\n{text(figures)}\n\nfigures: {path.relative_to(ROOT)}")
    for line in outside:
        print(f"OUTSIDE {line}")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
