"""Tables of engines and runtimes beside each other: what TVM makes of stages, and what a user would otherwise ship.

Each function gives the text of the block of its name in `docs/render.py`, from the file that its benchmark recorded.
"""

from __future__ import annotations

from docs.figures import MISSING, figures_of


def tvm() -> str:
    """Stages that TVM compiled, beside ONNX Runtime; by benchmarks/tvm.py."""
    figures = figures_of("profiles/host/tvm.json")
    if not figures:
        return MISSING
    lines = ["| stage | ONNX Runtime, ms | TVM, its own schedules, ms | TVM, searched, ms | searched / ONNX Runtime |",
             "|---|---|---|---|---|"]
    for name, row in figures["stages"].items():
        ours, own, searched = row["onnxruntime"], row["tvm"], row["tvm searched"]
        lines.append(f"| {name} | {ours:.3f} | {own:.3f} | {searched:.3f} | {searched / ours:.2f} |")
    found = "; ".join(note.removeprefix("TVM: ") for note in figures["notes"])
    where = figures["machine"]
    words = ("Stages of the light LIBERO-Goal policy in libvlart, one thread, every stage run cold; the fastest run of "
             f"each process, medians of {figures['rounds']} processes in turns. {found}. {where['cpu']}, apache-tvm "
             f"{where['versions']['apache-tvm']}.")
    return "\n".join([*lines, "", words, ""])


def runtimes() -> str:
    """libvlart beside the runtimes of others; by benchmarks/runtimes.py."""
    figures = figures_of("profiles/host/runtimes.json")
    if not figures:
        return MISSING
    nothing, blocks = (figures["stages"][s] for s in ("nothing", "blocks"))
    lines = ["| runtime | libraries, MB | static data, kB | artefact, MB | start, ms | call of an empty stage, us | "
             "call of 4 layers, ms | resident, MB |", "|---|---|---|---|---|---|---|---|"]
    for name, r in blocks.items():
        shipped = figures["shipped"].get(name)
        what = (f"{shipped['bytes'] / 1e6:.1f} | {(shipped['data'] + shipped['bss']) / 1e3:.0f} | "
                f"{r['artefact_bytes'] / 1e6:.2f}" if shipped else "- | - | -")
        lines.append(f"| {name if shipped else '(the process alone)'} | {what} | {r['start_ms']:.0f} | "
                     f"{nothing[name]['call_us']:.1f} | {r['call_us'] / 1e3:.2f} | {r['rss_mb']:.0f} |")
    return "\n".join([*lines, "", _how(figures), ""])


def _how(figures: dict) -> str:
    """What the figures are of, and on which terms."""
    ours, where, rows = figures["libvlart"], figures["machine"], figures["stages"]["blocks"]
    searched, off = figures["searched"].get("blocks"), max(r["max_abs"] for r in rows.values() if r["max_abs"] is not None)
    return (
        f"Of libvlart itself: {ours['text'] / 1e3:.0f} kB of code and constants, {ours['data']} B of data, "
        f"{ours['bss']} B of bss; its row counts ONNX Runtime in. One thread, medians of {figures['rounds']} "
        "processes in turns, called from Python, ExecuTorch from C++ (its binding for Python loads PyTorch); a start is "
        "that of the whole process until its first result. Outputs on every input are within "
        f"{off:.0e} of libvlart's. ONNX Runtime, TVM and IREE run the ONNX file of the bundle, ExecuTorch PyTorch's "
        "export of the same function. TVM's code is for x86-64-v3, with "
        + (f"searched schedules for {searched['found']} of {searched['kernels']} kernels" if searched else
           "TVM's own schedules (for searched ones see the table of its stages)")
        + "; the others use all that the processor has. "
        f"{where['cpu']}, {where['cores']} cores, apache-tvm {where['versions']['apache-tvm']}, ExecuTorch "
        f"{where['versions']['executorch']}, IREE {where['iree']}.")
