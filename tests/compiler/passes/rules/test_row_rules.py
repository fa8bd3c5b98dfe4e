"""Ops on rows apart are what they are on rows together: every op's rule against the op itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.fx import Graph

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import Program, execute, infer_val
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.lower_splits import LowerSplits
from vlacompile.compiler.passes.rules.split_rows import split_rows
from vlacompile.policy.policy import Policy, Source

CAT = torch.ops.aten.cat.default
torch.manual_seed(0)
C4, C6 = torch.randn(4), torch.randn(6)
GRID = torch.rand(3, 5, 5, 2) * 2 - 1
W = {"2d": torch.randn(5, 4, 3, 3), "t2d": torch.randn(4, 5, 3, 3), "66": torch.randn(6, 6)}
EVENS = torch.tensor([4, 0, 2])

# Of x [3,4,6,6]. What is split along which axis, the op says itself.
OPS = {
    "resize antialiased": lambda x: F.interpolate(x, (4, 3), mode="bilinear", antialias=True),
    "resize bicubic antialiased": lambda x: F.interpolate(x, (4, 3), mode="bicubic", antialias=True),
    "resize bicubic": lambda x: F.interpolate(x, (8, 7), mode="bicubic"),
    "resize nearest": lambda x: F.interpolate(x, scale_factor=2), "resize area": lambda x: F.interpolate(
        x, (3, 3), mode="area"),
    "resize nearest exact": lambda x: F.interpolate(x, (4, 4), mode="nearest-exact"),
    "resize 1d": lambda x: F.interpolate(x.flatten(2), 20, mode="linear"),
    "resize 3d": lambda x: F.interpolate(x[:, None], (4, 3, 3), mode="trilinear"),
    "convolution": lambda x: F.conv2d(x, W["2d"]), "transposed": lambda x: F.conv_transpose2d(x, W["t2d"]),
    "convolution 1d": lambda x: F.conv1d(x.flatten(2), W["2d"].flatten(2)),
    "depthwise": lambda x: F.conv2d(x, W["2d"][:4, :1], groups=4, padding="same"),
    "unbatched convolution": lambda x: F.conv2d(x[0], W["2d"]),
    "max pool": lambda x: F.max_pool2d(x, 2), "avg pool": lambda x: F.avg_pool2d(x, 2),
    "max pool, indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 2), "adaptive mean": lambda x: F.adaptive_avg_pool2d(x, 3),
    "unbatched pool": lambda x: F.max_pool2d(x[0], 2), "pool 1d": lambda x: F.max_pool1d(x.flatten(2), 2),
    "pool 3d": lambda x: F.avg_pool3d(x, 2), "lp pool": lambda x: F.lp_pool2d(x.abs(), 2, 2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)), "pad reflected": lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
    "pad replicated": lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"),
    "pad circular": lambda x: F.pad(x, (1, 2, 1, 0), mode="circular"),
    "crop": lambda x: x[..., 1:5, 2:], "centre crop every second": lambda x: x[:, :, 1:5:2],
    "flip": lambda x: x.flip(-1), "flip both": lambda x: x.flip(-1, -2), "flip rows": lambda x: x.flip(0),
    "flip channels": lambda x: x.flip(1), "roll": lambda x: x.roll(2, 3), "roll two": lambda x: x.roll((1, 2), (2, 3)),
    "normalise": lambda x: (x - C4[:, None, None]) / (C4.abs() + 1)[:, None, None],
    "normalise last": lambda x: x * C6 + C6, "bgr": lambda x: x[:, [2, 1, 0]], "columns": lambda x: x[..., EVENS],
    "index select": lambda x: x.index_select(2, EVENS), "mask": lambda x: x[:, :, C6 > 0],
    "several indices": lambda x: x[:, [0, 1], [2, 3]], "two-dimensional index": lambda x: x[:, EVENS[None] // 2],
    "grid sample": lambda x: F.grid_sample(x, GRID, align_corners=False), "affine warp": lambda x: F.grid_sample(
        x, F.affine_grid(torch.eye(2, 3).expand(3, 2, 3), (3, 4, 6, 6), align_corners=True), align_corners=True),
    "group norm": lambda x: F.group_norm(x, 2), "instance norm": F.instance_norm,
    "instance norm with weights": lambda x: F.instance_norm(x, weight=C4, bias=C4),
    "batch norm": lambda x: F.batch_norm(x, C4, C4.abs()),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "layer norm": lambda x: F.layer_norm(x, (6,), C6), "rms norm": lambda x: F.rms_norm(x, (6, 6)),
    "normalised": lambda x: F.normalize(x, dim=1), "local response": lambda x: F.local_response_norm(x, 3),
    "mean": lambda x: x.mean((2, 3)), "std": lambda x: x.std((2, 3), keepdim=True), "var": lambda x: x.var(1),
    "max": lambda x: x.max(1)[0], "argmax": lambda x: x.argmax(-1), "amin": lambda x: x.amin((1, 2)),
    "min over rows": lambda x: x.min(0)[0], "any": lambda x: (x > 1).any(1), "norm": lambda x: x.norm(dim=(2, 3)),
    "logsumexp": lambda x: x.logsumexp(2), "prod": lambda x: x.prod(1), "mean of all": lambda x: x.mean(),
    "sort": lambda x: x.sort(1)[0], "topk": lambda x: x.topk(2, 2)[0], "cumsum": lambda x: x.cumsum(1),
    "softmax": lambda x: x.softmax(1), "log softmax": lambda x: x.log_softmax(-1), "glu": lambda x: F.glu(x, 1),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2), "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2), "patches": lambda x: F.unfold(x, 2, stride=2),
    "windows": lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2), "diagonal": lambda x: x.diagonal(0, 2, 3),
    "tril": lambda x: x.tril(), "repeat": lambda x: x.repeat(1, 1, 2, 1), "repeat rows": lambda x: x.repeat(2, 1, 1, 1),
    "repeat interleave": lambda x: x.repeat_interleave(2, 3), "expand": lambda x: x[:, :, None].expand(3, 4, 2, 6, 6),
    "view": lambda x: x.flatten(2), "view heads": lambda x: x.view(3, 2, 2, 6, 6).transpose(1, 3),
    "view that mixes": lambda x: x.reshape(8, 9, 6), "permute": lambda x: x.permute(0, 2, 3, 1),
    "squeeze": lambda x: x[:, None].squeeze(1), "mT": lambda x: x.mT,
    "linear": lambda x: F.linear(x, W["66"], C6), "matmul": lambda x: x @ W["66"], "self product": lambda x: x @ x.mT,
    "left product": lambda x: W["66"] @ x, "addmm": lambda x: torch.addmm(C6, x[:, 0, 0], W["66"]),
    "einsum": lambda x: torch.einsum("bchw,wv->bvch", x, W["66"]),
    "einsum of two": lambda x: torch.einsum("bchw,bchv->bcwv", x, x),
    "einsum with dots": lambda x: torch.einsum("... h w, ... v w -> ... h v", x, x.tanh()),
    "einsum with some dots": lambda x: torch.einsum("...hw,...wv->v...h", x, W["66"]),
    "einsum with one row for all": lambda x: torch.einsum("bchw,bcvw->bchv", x, W["66"][None, None].expand(1, 4, 6, 6)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x), "cross": lambda x: torch.linalg.cross(
        x[:, :3], x[:, 1:], dim=1),
    "embedding": lambda x: F.embedding((x > 0).long(), W["66"]), "where": lambda x: torch.where(x > 0, x, -x),
    "clamp": lambda x: x.clamp(0, 1), "gather": lambda x: x.gather(1, (x > 0).long()), "cast": lambda x: x.double(),
    "stacked": lambda x: torch.stack([x, 2 * x], 1), "joined": lambda x: torch.cat([x, x.relu()], 2),
    "split again": lambda x: torch.cat(x.split(2, 1)[::-1], 3),
    "grey": lambda x: (x[:, :3] * C4[:3, None, None]).sum(1),
}
# Independent along these axes, and done whole: weights per channel would have to be divided with them, indices counted.
WHOLE = {("left product", 0), ("left product", 1), ("depthwise", 1), ("batch norm", 1), ("batch statistics", 1),
         ("instance norm with weights", 1), ("several indices", 0), ("group norm", 1), ("pool 3d", 1)}


def parted(program: Program, axis: int, size: int) -> Program:
    """The program of x = cat([a, b], axis), where a has `size` rows."""
    graph, new = Graph(), {}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            new[node] = graph.node_copy(node, new.__getitem__)
            continue
        shape, parts = list(node.meta["val"].shape), []
        for name, rows in (("a", size), ("b", shape[axis] - size)):
            parts.append(graph.placeholder(name))
            parts[-1].meta["val"] = torch.empty(*shape[:axis], rows, *shape[axis + 1:], device="meta")
        new[node] = graph.call_function(CAT, (parts, axis))
        new[node].meta["val"] = infer_val(new[node])
    names = {"a": "a", "b": "b"}
    return Program("parted", graph, program.constants, dict.fromkeys(names, Source("observation")), names,
                   program.outputs, program.parameters)


def independent(f, x: torch.Tensor, axis: int, size: int) -> bool:
    """Whether f of rows apart is f of rows together, along one axis of the result."""
    try:
        apart = [f(part.contiguous()) for part in x.split([size, x.shape[axis] - size], axis)]
    except (RuntimeError, IndexError, ValueError):
        return False
    whole = f(x)
    for result in range(whole.dim()):
        if all(p.dim() == whole.dim() for p in apart) and all(
                p.shape[d] == whole.shape[d] for p in apart for d in range(whole.dim()) if d != result):
            joined = torch.cat(apart, result)
            if joined.shape == whole.shape and torch.allclose(joined.double(), whole.double(), atol=1e-5):
                return True
    return False


@pytest.mark.parametrize("name", OPS)
def test_rows_apart_are_rows_together(name):
    torch.manual_seed(1)
    f, x = OPS[name], torch.randn(3, 4, 6, 6)
    policy = Policy("p", lambda x: {"action": f(x)}, {"x": Source("observation")}, {"x": x})
    program = LowerSplits().run(DropIdentities().run(capture(policy)).program).program
    for axis in range(x.dim()):
        size = 1 + (axis == 1)
        whole = parted(program, axis, size)
        root = next(n for n in whole.graph.nodes if n.target is CAT)
        split = split_rows(whole, {root: [1, 1]})
        divided = whole.output_nodes()[0] in split.values
        a, b = (t.contiguous() for t in x.split([size, x.shape[axis] - size], axis))
        got = execute(split.finish(), {"a": a, "b": b})[0]["action"]
        assert got.shape == f(x).shape and torch.allclose(got.double(), f(x).double(), atol=1e-5), f"axis {axis}"
        if axis < 2 and (name, axis) not in WHOLE and independent(f, x, axis, size):
            assert divided, f"{name} acts on rows of axis {axis} alone, and is not split"
