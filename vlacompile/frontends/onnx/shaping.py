"""ONNX ops that move, repeat, select and rearrange elements."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from vlacompile.frontends.onnx.ops import NotCovered, axes_of, choose, op


@op("Shape", of_shape=True)
def shape(node, x):
    return torch.tensor(list(x.shape)[node.get("start", 0): node.get("end", None)], dtype=torch.int64)


@op("Size", of_shape=True)
def size(node, x):
    return torch.tensor(x.numel(), dtype=torch.int64)


@op("Reshape", known=(1,))
def reshape(node, x, dims):
    if not node.get("allowzero", 0):
        dims = [x.shape[i] if d == 0 else d for i, d in enumerate(dims)]
    return x.reshape(dims)


@op("Flatten")
def flatten(node, x):
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op("Transpose")
def transpose(node, x):
    order = node.get("perm")
    return x.permute(tuple(reversed(range(x.dim()))) if order is None else tuple(order))


@op("Squeeze", known=(1,))
def squeeze(node, x, axes=None):
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else axes_of(x, axes)
    return x.reshape([n for i, n in enumerate(x.shape) if i not in axes]) if len(axes) != 1 else x.squeeze(axes[0])


@op("Unsqueeze", known=(1,))
def unsqueeze(node, x, axes):
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@op("Expand", known=(1,))
def expand(node, x, dims):
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(dims)))


@op("Tile", known=(1,))
def tile(node, x, repeats):
    return x.repeat(repeats)


@op("Concat")
def concat(node, *xs):
    return torch.cat(xs, node.get("axis"))


@op("Split", known=(1,))
def split(node, x, sizes=None):
    axis = node.get("axis", 0)
    if sizes is None:
        count = node.listed
        sizes = -(-x.shape[axis] // count)  # the last may be smaller
    return tuple(torch.split(x, sizes, axis))


@op("Slice", known=(1, 2, 3, 4))
def slice_(node, x, starts, ends, axes=None, steps=None):
    axes = axes_of(x, range(len(starts)) if axes is None else axes)
    for axis, start, end, step in zip(axes, starts, ends, [1] * len(starts) if steps is None else steps, strict=True):
        begin, end, step = slice(start, end, step).indices(x.shape[axis])
        if step > 0:
            x = x[(slice(None),) * axis + (slice(begin, max(begin, end), step),)]
        else:
            x = choose(x, axis, list(range(begin, end, step)))
    return x


@op("Gather", maybe=(1,), weights=(0,))
def gather(node, x, indices):
    axis = node.get("axis", 0) % x.dim()
    if isinstance(indices, int):
        return x.select(axis, indices)
    if isinstance(indices, list):
        flat = np.array(indices, dtype=np.int64)
        chosen = choose(x, axis, (flat.ravel() % x.shape[axis]).tolist())
        return chosen.reshape(*x.shape[:axis], *flat.shape, *x.shape[axis + 1:])
    if axis == 0 and x.dim() == 2 and x.is_floating_point():
        return F.embedding(indices, x)
    return x[(slice(None),) * axis + (indices,)]


@op("GatherElements")
def gather_elements(node, x, indices):
    axis = node.get("axis", 0)
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _coordinates(indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(indices[..., i] for i in range(indices.shape[-1]))


@op("GatherND")
def gather_nd(node, x, indices):
    node.refuse("batch_dims", 0)
    return x[_coordinates(indices)]


@op("ScatterND", maybe=(1,))
def scatter_nd(node, x, indices, updates):
    reduction = node.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise NotCovered(f"reduction={reduction!r} is not covered")
    if isinstance(indices, list):
        places = np.array(indices, dtype=np.int64)
        rows = places.ravel().tolist()
        if reduction == "none" and places.ndim == 2 and places.shape[1] == 1 and rows[0] >= 0 and \
                rows == list(range(rows[0], rows[0] + len(rows))):  # equivalent to assigning a slice
            return torch.slice_scatter(x, updates, 0, rows[0], rows[0] + len(rows))
        indices = torch.tensor(indices, dtype=torch.int64, device=x.device)
    return x.index_put(_coordinates(indices), updates, accumulate=reduction == "add")


@op("ScatterElements")
def scatter_elements(node, x, indices, updates):
    reduction, axis = node.get("reduction", "none"), node.get("axis", 0)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    if reduction == "none":
        return torch.scatter(x, axis, indices, updates)
    if reduction == "add":
        return torch.scatter_add(x, axis, indices, updates)
    raise NotCovered(f"reduction={reduction!r} is not covered")


@op("Pad", known=(1, 2, 3))
def pad(node, x, pads, value=None, axes=None):
    axes, mode = axes_of(x, range(x.dim()) if axes is None else axes), node.get("mode", "constant")
    around = {a: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
    if mode == "constant":
        flat = [n for axis in reversed(range(x.dim())) for n in around.get(axis, (0, 0))]
        value = value[0] if isinstance(value, list) else value
        return F.pad(x, flat, value=0 if value is None else value)
    if min(pads) < 0 or mode not in ("reflect", "edge", "wrap"):
        raise NotCovered(f"mode={mode!r} with pads {pads} is not covered")
    for axis, widths in around.items():
        if widths != (0, 0):
            x = choose(x, axis, np.pad(np.arange(x.shape[axis]), widths, mode=mode).tolist())
    return x


@op("Range", of_values=True)
def range_(node, start, limit, delta):
    count = max(0, math.ceil((limit.item() - start.item()) / delta.item()))
    return torch.arange(count).to(start.dtype) * delta + start


@op("ConstantOfShape", known=(0,))
def constant_of_shape(node, dims):
    value = node.get("value")
    return torch.zeros(dims) if value is None else value.reshape(()).expand(dims).clone()


@op("OneHot", known=(1,))
def one_hot(node, indices, depth, values):
    depth = int(depth[0] if isinstance(depth, list) else depth)
    places = torch.where(indices < 0, indices + depth, indices)
    hot = places[..., None] == torch.arange(depth, device=indices.device)
    return torch.where(hot, values[1], values[0]).movedim(-1, node.get("axis", -1))


@op("Trilu", known=(1,))
def trilu(node, x, k=None):
    k = 0 if k is None else k if isinstance(k, int) else k[0]
    return torch.triu(x, k) if node.get("upper", 1) else torch.tril(x, k)


@op("NonZero", of_values=True)
def nonzero(node, x):
    return torch.nonzero(x).T


@op("DepthToSpace")
def depth_to_space(node, x):
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // (b * b), h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(node, x):
    node.refuse("mode", "DCR")
    n, c, h, w = x.shape
    b = node.get("blocksize")
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)
