"""Writes resizes that engines compute otherwise than PyTorch as products with constants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import ENGINE_TYPES
from vlacompile.compiler.graph.loop_end import is_variable
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.rules.resize_weights import KERNELS, Axis, Kernel, integer_weights

_ATEN = torch.ops.aten
_ANTIALIASED = {_ATEN._upsample_bilinear2d_aa: "bilinear", _ATEN._upsample_bicubic2d_aa: "bicubic",
                _ATEN._upsample_lanczos2d_aa: "lanczos"}
_PLAIN = {_ATEN.upsample_bilinear2d: "bilinear", _ATEN.upsample_bicubic2d: "bicubic"}


@dataclass(frozen=True)
class LowerResizes(GraphPass):
    """An antialiased resize of an image becomes a product with a constant matrix per axis. Of bytes, antialiased or
    not, it becomes PyTorch's own sums of integers, rounded to bytes after each axis. What no source reaches is left to
    PyTorch.

    TensorRT has no antialiasing, ONNX Runtime's (1.32) gives other numbers where an image becomes smaller by a factor
    that is not whole, and both round bytes once, not twice.

    Before:
        %x = source "x" f32[1,3,4,6]
        %_upsample_bilinear2d_aa = _upsample_bilinear2d_aa.vec(%x, [2, 6], False, None) f32[1,3,2,6]
        return action=%_upsample_bilinear2d_aa
    After:
        %x = source "x" f32[1,3,4,6]
        %resize__bilinear_4_2 = constant "resize__bilinear_4_2" f32[2,4]
        %matmul = matmul(%resize__bilinear_4_2, %x) f32[1,3,2,6]
        return action=%matmul
    """

    requires = frozenset({ENGINE_TYPES})

    def run(self, program: Program) -> PassResult:
        editor, live, count = ProgramEditor(program), set(), 0
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if is_variable(node, live):
                live.add(node)
            mode = _mode(node) if node in live else None
            if mode is None:
                editor.keep(node)
                continue
            editor.replace(node, _Resize(editor, node, mode).written())
            count += 1
        return PassResult(editor.finish(), True, (f"wrote {count} resizes",)) if count else PassResult(program, False)


def _mode(node: Node) -> tuple[str, bool] | None:
    """A key of KERNELS for what is to be written; None: the node stays."""
    packet = getattr(node.target, "overloadpacket", None)
    if node.op != "call_function" or (packet not in _ANTIALIASED and packet not in _PLAIN):
        return None
    if packet in _ANTIALIASED and node.args[0].meta["val"].dtype in (torch.float32, torch.uint8):
        return _ANTIALIASED[packet], True
    return (_PLAIN[packet], False) if node.args[0].meta["val"].dtype is torch.uint8 else None


class _Resize:
    def __init__(self, editor: ProgramEditor, node: Node, mode: tuple[str, bool]):
        self.editor, self.node, self.mode = editor, node, mode
        names = [a.name for a in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        factors = given.get("scale_factors") or (given.get("scales_h"), given.get("scales_w"))
        image, out = node.args[0].meta["val"].shape, node.meta["val"].shape
        self.axes = [Axis(int(image[k]), int(out[k]), given["align_corners"], f)
                     for k, f in zip((-2, -1), factors, strict=True)]

    def written(self) -> Node:
        """Columns first, as PyTorch does."""
        x = self.editor.map(self.node.args[0])
        rows, columns = self.axes
        in_bytes = x.meta["val"].dtype is torch.uint8
        if in_bytes:
            x = self._emit(_ATEN._to_copy.default, (x,), {"dtype": torch.int32})
        for dim, axis in ((3, columns), (2, rows)):
            if not axis.is_kept:
                x = self._integers(x, dim, axis) if in_bytes else self._product(x, dim, axis)
        if in_bytes:
            x = self._emit(_ATEN._to_copy.default, (x,), {"dtype": torch.uint8})
        return x if x.op == "call_function" else self._emit(_ATEN.clone.default, (x,))

    def _emit(self, target, args: tuple, kwargs: dict | None = None) -> Node:
        return self.editor.emit(target, args, kwargs, like=self.node)

    @property
    def _kernel(self) -> Kernel:
        return KERNELS[self.mode]

    def _name(self, axis: Axis, what: str = "") -> str:
        mode, antialias = self.mode
        words = [mode, "" if antialias else "plain", "corners" if axis.align_corners else "", axis.size, axis.out,
                 "" if axis.factor is None else f"{axis.factor:.17g}".replace(".", "_"), what]
        return "resize__" + "_".join(str(w) for w in words if w != "")

    def _product(self, x: Node, dim: int, axis: Axis) -> Node:
        matrix = self._as_resized(axis)
        if dim == 2:
            return self._emit(_ATEN.matmul.default, (self.editor.constant(self._name(axis), matrix), x))
        columns = self.editor.constant(self._name(axis, "columns"), matrix.T.contiguous())
        return self._emit(_ATEN.matmul.default, (x, columns))

    def _as_resized(self, axis: Axis) -> torch.Tensor:
        """f32[out,size]: what PyTorch makes of an identity matrix along this axis. Its weights are up to 6e-6 from
        those in f64, which moves an image that is rounded to bytes afterwards."""
        identity = torch.eye(axis.size)[None, None]
        return self.node.target.overloadpacket.default(
            identity, [axis.out, axis.size], axis.align_corners, axis.factor, None)[0, 0]

    def _integers(self, x: Node, dim: int, axis: Axis) -> Node:
        """i32 0..255 -> i32 0..255. Weights are below 2^22 in sum, up to overshoot: no sum leaves 32 bits."""
        found = integer_weights(axis.matrix(self._kernel))
        out, taps = found.weights.shape
        shape = [int(d) for d in x.meta["val"].shape]
        shape[dim:dim + 1] = [out, taps]
        places = self.editor.constant(self._name(axis, "places"), torch.from_numpy(found.places).reshape(-1))
        weights = torch.from_numpy(found.weights).reshape(out, taps, *(1,) * (3 - dim))
        x = self._emit(_ATEN.index_select.default, (x, dim, places))
        x = self._emit(_ATEN.reshape.default, (x, shape))
        x = self._emit(_ATEN.mul.Tensor, (x, self.editor.constant(self._name(axis, f"weights_{dim}"), weights)))
        x = self._emit(_ATEN.sum.dim_IntList, (x, [dim + 1]), {"dtype": torch.int32})
        half = 1 << found.binary_places >> 1
        x = self._emit(_ATEN.clamp.default, (self._emit(_ATEN.add.Tensor, (x, half)), 0))
        x = self._emit(_ATEN.div.Tensor_mode, (x, 1 << found.binary_places), {"rounding_mode": "trunc"})
        return self._emit(_ATEN.clamp.default, (x, None, 255))
