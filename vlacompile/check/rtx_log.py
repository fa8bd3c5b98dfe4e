"""The table of kernels that TensorRT-RTX 1.7 logs (VERBOSE, ProfilingVerbosity DETAILED) -> typed records.

Must know nothing but the text of that log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """kind: as in the log (gemm, kgen, runtime_fusion, correlation, ...). inputs, constants, outputs: element
    types. nodes: names of the ONNX nodes that it computes, entirely or in part."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str
    nodes: frozenset[str]

    @property
    def attention(self) -> bool:
        return "mha" in f"{self.name} {self.tactic}".lower()


@dataclass(frozen=True)
class Compiled:
    """Bytes are as logged; those of weights are rounded up for the kernels' alignment."""

    weight_bytes: int
    activation_bytes: int
    kernels: tuple[Kernel, ...]


_ROW = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\], Constants: "
                  r"\[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>.*?), StreamId")
_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def read_log(rows: Iterable[str]) -> Compiled:
    """rows: complete messages, which may have several lines."""
    sizes = {"Total Weights Memory": 0, "Total Activation Memory": 0}
    kernels: list[Kernel] = []
    for row in rows:
        for key in sizes:
            if row.startswith(key):
                sizes[key] += int(re.findall(r"(\d+) bytes", row)[0])
        if row.startswith("Layers:"):
            kernels += [k for line in row.splitlines() if (k := _kernel(line)) is not None]
    return Compiled(sizes["Total Weights Memory"], sizes["Total Activation Memory"], tuple(kernels))


def _kernel(line: str) -> Kernel | None:
    # the bracketed lists contain nested brackets: dimensions and strides
    flat = re.sub(r"(Dimensions|Strides|StrideOrder): \[[^\]]*\]", "", line)
    found = _ROW.match(flat)
    if found is None or found["kind"] in ("signal", "wait"):
        return None
    types = {k: tuple(_TYPE.findall(found[k])) for k in ("inputs", "constants", "outputs")}
    return Kernel(found["name"], found["kind"], types["inputs"], types["constants"], types["outputs"], found["tactic"],
                  frozenset(_NODE.findall(line)))
