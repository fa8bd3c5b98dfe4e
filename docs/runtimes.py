"""Tables of engines and runtimes beside each other: what TVM makes of stages, and what a user would otherwise ship.

Each function gives the text of the block of its name in `docs/render.py`, from the file that its benchmark recorded.
"""

from __future__ import annotations

from docs.figures import MISSING, figures_of, table


def tvm() -> str:
    """Stages that TVM compiled, beside ONNX Runtime; by benchmarks/tvm.py."""
    figures = figures_of("profiles/host/tvm.json")
    if not figures:
        return MISSING
    rows = [[name, *(f"{row[e]:.3f}" for e in ("onnxruntime", "tvm", "tvm searched")),
             f"{row['tvm searched'] / row['onnxruntime']:.2f}"] for name, row in figures["stages"].items()]
    found = "; ".join(note.removeprefix("TVM: ") for note in figures["notes"])
    where = figures["machine"]
    titles = ["stage", "ONNX Runtime, ms", "TVM, its own schedules, ms", "TVM, searched, ms", "searched / ONNX Runtime"]
    return table(titles, rows, "Stages of the light LIBERO-Goal policy in libvlart, one thread, every stage run cold; "
                 f"the fastest run of each process, medians of {figures['rounds']} processes in turns. {found}. "
                 f"{where['cpu']}, apache-tvm {where['versions']['apache-tvm']}.")


def runtimes() -> str:
    """libvlart beside the runtimes of others; by benchmarks/runtimes.py."""
    figures = figures_of("profiles/host/runtimes.json")
    if not figures:
        return MISSING
    nothing, blocks = (figures["stages"][s] for s in ("nothing", "blocks"))
    rows = []
    for name, r in blocks.items():
        shipped = figures["shipped"].get(name)
        what = (f"{shipped['bytes'] / 1e6:.1f}", f"{(shipped['data'] + shipped['bss']) / 1e3:.0f}",
                f"{r['artefact_bytes'] / 1e6:.2f}") if shipped else "---"
        rows.append([name if shipped else "(the process alone)", *what, f"{r['start_ms']:.0f}",
                     f"{nothing[name]['call_us']:.1f}", f"{r['call_us'] / 1e3:.2f}", f"{r['rss_mb']:.0f}"])
    titles = ["runtime", "libraries, MB", "static data, kB", "artefact, MB", "start, ms", "call of an empty stage, us",
              "call of 4 layers, ms", "resident, MB"]
    return table(titles, rows, _how(figures))


def _how(figures: dict) -> str:
    """What the figures are of, and on which terms."""
    ours, where, rows = figures["libvlart"], figures["machine"], figures["stages"]["blocks"]
    searched = figures["searched"].get("blocks")
    off = max(r["max_abs"] for r in rows.values() if r["max_abs"] is not None)
    return (
        f"Of libvlart itself: {ours['text'] / 1e3:.0f} kB of code and constants, {ours['data']} B of data, "
        f"{ours['bss']} B of bss; its row counts ONNX Runtime in. One thread, medians of {figures['rounds']} "
        "processes in turns, called from Python, ExecuTorch from C++ (its binding for Python loads PyTorch); a start "
        "is that of the whole process until its first result. Outputs on every input are within "
        f"{off:.0e} of libvlart's. ONNX Runtime, TVM and IREE run the ONNX file of the bundle, ExecuTorch PyTorch's "
        "export of the same function. TVM's code is for x86-64-v3, with "
        + (f"searched schedules for {searched['found']} of {searched['kernels']} kernels" if searched else
           "TVM's own schedules (for searched ones see the table of its stages)")
        + "; the others use all that the processor has. "
        f"{where['cpu']}, {where['cores']} cores, apache-tvm {where['versions']['apache-tvm']}, ExecuTorch "
        f"{where['versions']['executorch']}, IREE {where['iree']}.")
