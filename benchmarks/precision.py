"""Effect of precision: whole bundles per mode, and single stages compared with other tools' quantisation of the stage.

    python -m benchmarks.precision modes light [--record]     every mode of a member, as bundles through libvlart
    python -m benchmarks.precision modes smolvla [--record]   the same of a LeRobot policy of real size, random weights,
                                                              in the environment lerobot; precisions chosen per stage
    python -m benchmarks.precision stages light [--record]    all layers of a stage in int8 and in int4, beside ONNX
                                                              Runtime's own quantiser and OpenVINO's NNCF

One thread, interleaved, medians. Errors are on recorded observations that nothing was calibrated on. Writes
build/bench/ (--record: profiles/host/) precision-{modes,stages}-MEMBER.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

import vlacompile as vc
from examples.libero_goal import policy as members
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.precision.assign.assign import split
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.staging.choose_solver import action_error, calibration
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.hardware.target import load_target
from vlacompile.phases.load_policy import load_policy
from vlacompile.phases.phase import Phase
from vlacompile.phases.read_inputs import Inputs, resolve
from vlacompile.pipeline import until
from vlacompile.profile import machine
from vlacompile.recipe.recipe import load_recipe

MEMBERS = ("light", "heavy")
MODES = ("fp32", "fp16", "int8", "int4", "auto")
ROUNDS, PER_ROUND = 15, 10
Feed = dict[str, np.ndarray]


def measure_modes(member: str, folder: Path) -> dict:
    """One row per mode: bytes, ms per replan with the same and with a new instruction, memory, error of the chunk."""
    source = f"examples.libero_goal.policy:{member}" if member in MEMBERS else _written(member, folder)
    with _sized(member):
        policy = load_policy(source)
    held = split(calibration(policy, load_recipe(None).precision))[1]
    observations = [{n: x[n].numpy() for n, s in policy.sources.items() if s.update != "static"} for x in held]
    paths = {}
    for mode in MODES:
        paths[mode] = folder / f"{mode}.vlab"
        if not paths[mode].is_dir():  # in a process of its own, so that the build's memory is freed
            print(f"build {mode}", flush=True)
            recipe = members.recipe_of(mode) if member in MEMBERS else _coarse(mode, folder)
            run = [sys.executable, "-W", "ignore", "-c", BUILD, member, str(source), recipe, str(paths[mode])]
            begin = time.perf_counter()
            subprocess.run(run, check=True)
            print(f"  {time.perf_counter() - begin:.0f} s", flush=True)
    tasks = [n for n, s in policy.sources.items() if s.update == "task"]
    tasks.sort(key=lambda n: policy.example_inputs[n].dtype == torch.bool)  # ids before their mask
    sessions = {m: vc.Session(p, threads=1) for m, p in paths.items()}
    chunks = {m: [_step(s, x, None, tasks) and torch.from_numpy(s.read("action").copy()) for x in observations]
              for m, s in sessions.items()}
    times = {(m, k): [] for m in MODES for k in ("same", "new")}
    stages = {m: {s.name: [] for s in session.plan.stages} for m, session in sessions.items()}
    rounds, per_round = (ROUNDS, PER_ROUND) if member in MEMBERS else (3, 2)
    for i in range(rounds):
        for mode, session in sessions.items():
            for j in range(per_round):
                x = observations[(i * per_round + j) % len(observations)]
                for kind in ("same", "new") if j % 5 == 0 else ("same",):
                    before = session.stats().runs()
                    times[mode, kind].append(_step(session, x, kind, tasks))
                    for name, t in session.stats().stages.items():
                        stages[mode][name] += [t.last_us / 1e3] if t.runs > before[name] else []
    rows = []
    for mode in MODES:
        size = sum(f.stat().st_size for f in (paths[mode] / "stages").iterdir())
        rows.append({"mode": mode, "megabytes": size / 1e6, "peak_rss_mb": _memory(paths[mode]),
                     **{f"{k}_ms": median(t for t in times[mode, k]) for k in ("same", "new")},
                     "stages_ms": {n: median(t) for n, t in stages[mode].items() if t},
                     "action_error": action_error(chunks[mode], chunks["fp32"])})
        print("{mode:5} {megabytes:7.1f} MB  {same_ms:6.2f} ms  {new_ms:6.2f} ms  RSS {peak_rss_mb:5.0f} MB  "
              "error {action_error:.4f}".format(**rows[-1]), flush=True)
    return {"member": member, "rows": rows, "observations": len(observations)}


def _written(kind: str, folder: Path) -> Path:
    from tests.environments.lerobot.checkpoints import write

    source = (folder / "pretrained_model").absolute()
    if not source.is_dir():
        write(kind, source, real=True)
    return source


def _sized(member: str):
    """Context with a LeRobot policy's backbone at its real size; no-op for a member."""
    if member in MEMBERS:
        return nullcontext()
    from tests.environments.lerobot.checkpoints import sized

    return sized(member, real=True)


def _coarse(mode: str, folder: Path) -> str:
    """A shipped recipe, decided per stage on few observations: a chunk of a policy of this size takes seconds."""
    text = (Path("recipes") / f"{'default' if mode == 'fp32' else mode}.toml").read_text(encoding="utf-8")
    if mode != "fp32":
        text = text.replace("[precision]",
                            '[precision]\ndecide = "stage"\nobservations = 4') + "\n[verify]\nframes = 4\n"
    path = folder / f"{mode}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


BUILD = """
import sys, time
import vlacompile as vc
from benchmarks.precision import _sized
member, source, recipe, out = sys.argv[1:]
with _sized(member):
    vc.build(source, recipe=recipe, out=out,
             progress=lambda phase: print(" ", time.strftime("%H:%M:%S"), phase, flush=True))
"""


def _step(session: vc.Session, inputs: Feed, kind: str | None, tasks: Sequence[str]) -> float:
    """ms of one replan. kind: "same": inputs that change only with the task are not written; "new": they are, with one
    id changed."""
    for name, array in inputs.items():
        if kind != "same" or name not in tasks:
            session.write(name, array)
    if kind == "new":
        tokens = inputs[tasks[0]].copy()
        tokens[0, 1] += 1
        session.write(tasks[0], tokens)
    begin = time.perf_counter()
    session.step()
    return 1e3 * (time.perf_counter() - begin)


def _memory(bundle: Path) -> float:
    """Peak MB of a process that runs the golden frames. Not by getrusage, which includes this process before exec."""
    code = ("import sys, vlacompile as vc; vc.verify(sys.argv[1], threads=1);"
            "print(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1])")
    done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True)
    return float(done.stdout) / 1e3


# single stages


def measure_stages(member: str, folder: Path) -> dict:
    policy = load_policy(f"examples.libero_goal.policy:{member}")
    target = load_target("host")
    inputs = Inputs(policy, target, resolve(load_recipe("libero-goal"), policy))
    staged = until(Phase.VERIFY_STAGING, inputs).staging.staged
    fitted, held = split(calibration(policy, load_recipe(None).precision))
    runner = StageRunner(staged)
    values = [runner.run(x) for x in (*fitted, *held)]
    whole = {m: replace(load_recipe(members.recipe_of(m)).precision, layers=m, max_action_error=None)
             for m in ("int8", "int4")}
    ours = {m: set_precision(staged, policy, r, target, lambda phase: None).staged for m, r in whole.items()}
    rows = []
    for i, stage in enumerate(staged.stages):
        feeds = [{p.name: v[p.value].contiguous().numpy() for p in stage.inputs} for v in values]
        where = folder / stage.name
        where.mkdir()
        engines = _engines(stage, {m: s.stages[i] for m, s in ours.items()}, feeds[: len(fitted)], where)
        rows += _measure(stage.name, engines, feeds[len(fitted):])
    return {"member": member, "rows": rows, "observations": len(held)}


Run = Callable[[Feed], Sequence[np.ndarray]]


def _engines(stage: StageGraph, ours: dict[str, StageGraph], fitted: list[Feed],
             folder: Path) -> dict[str, tuple[Run, int]]:
    """{name: (one run, bytes of the model)}"""
    plain = _saved(stage, folder / "fp32.onnx")
    found = {"fp32": _onnxruntime(plain)}
    found |= {f"{m}, ours": _onnxruntime(_saved(s, folder / f"{m}.onnx")) for m, s in ours.items()}
    for name, make in (("int8, ORT dynamic", _ort_dynamic), ("int8, ORT static", _ort_static), ("int8, NNCF", _nncf)):
        try:
            found[name] = make(plain, fitted, folder)
        except Exception as error:  # noqa: BLE001  a failure of another tool is a result
            print(f"  {name} of {stage.name}: {type(error).__name__}: {str(error).splitlines()[0][:120]}", flush=True)
    return found


def _saved(stage: StageGraph, path: Path) -> Path:
    path.write_bytes(ir.to_proto(emit_onnx(stage).model).SerializeToString())
    return path


def _onnxruntime(path: Path) -> tuple[Run, int]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return (lambda feed: session.run(None, feed)), path.stat().st_size


def _ort_dynamic(plain: Path, fitted: list[Feed], folder: Path) -> tuple[Run, int]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(plain, folder / "dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8)
    return _onnxruntime(folder / "dynamic.onnx")


def _ort_static(plain: Path, fitted: list[Feed], folder: Path) -> tuple[Run, int]:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter(fitted)

        def get_next(self):
            return next(self.rest, None)

    quant_pre_process(plain, folder / "prepared.onnx")
    quantize_static(folder / "prepared.onnx", folder / "static.onnx", Reader(), quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return _onnxruntime(folder / "static.onnx")


def _nncf(plain: Path, fitted: list[Feed], folder: Path) -> tuple[Run, int]:
    import nncf
    import openvino as ov

    nncf.set_log_level("ERROR")
    core = ov.Core()
    small = nncf.quantize(core.read_model(plain), nncf.Dataset(fitted), preset=nncf.QuantizationPreset.MIXED,
                          subset_size=len(fitted))
    ov.save_model(small, folder / "nncf.xml", compress_to_fp16=False)
    request = core.compile_model(small, "CPU",
                                 {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    size = sum((folder / f"nncf.{x}").stat().st_size for x in ("xml", "bin"))
    return (lambda feed: [np.array(x) for x in request.infer(feed).values()]), size


def _measure(stage: str, engines: dict[str, tuple[Run, int]], feeds: list[Feed]) -> list[dict]:
    want = [engines["fp32"][0](f) for f in feeds]
    times: dict[str, list[float]] = {n: [] for n in engines}
    for i in range(ROUNDS):
        for name, (run, _) in engines.items():
            for j in range(PER_ROUND):
                feed = feeds[(i + j) % len(feeds)]
                begin = time.perf_counter()
                run(feed)
                times[name].append(1e3 * (time.perf_counter() - begin))
    rows = []
    for name, (run, size) in engines.items():
        off = sum(float(np.square(a - b).sum()) for f, w in zip(feeds, want, strict=True)
                  for a, b in zip(run(f), w, strict=True))
        all_ = sum(float(np.square(b).sum()) for w in want for b in w)
        rows.append({"stage": stage, "engine": name, "ms": median(times[name]), "megabytes": size / 1e6,
                     "rel_l2": (off / all_) ** 0.5})
        print("{stage:18} {engine:18} {ms:8.3f} ms {megabytes:7.2f} MB  rel L2 {rel_l2:.4f}".format(**rows[-1]),
              flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["modes", "stages"])
    parser.add_argument("member", choices=["light", "heavy", "act", "diffusion", "smolvla"])
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    parser.add_argument("--bundles", type=Path,
                        help="where bundles of the modes are stored (default: a temporary folder)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what == "modes":
            found = measure_modes(arguments.member, arguments.bundles or Path(folder))
        else:
            found = measure_stages(arguments.member, Path(folder))
    out = Path("profiles/host" if arguments.record
               else "build/bench") / f"precision-{arguments.what}-{arguments.member}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    found |= {"machine": machine.describe(), "rounds": ROUNDS, "per_round": PER_ROUND}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
