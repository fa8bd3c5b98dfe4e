"""ONNX ops of neural networks: convolution, pooling, normalisation, resizing."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from vlacompile.frontends.onnx.ops import NotCovered, choose, op


def _padding(node, x: torch.Tensor, kernel, strides, dilations) -> tuple[list[int], list[int]]:
    """(before, after) per spatial axis."""
    n, mode = len(kernel), node.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(node.get("pads") or [0] * 2 * n) if mode == "NOTSET" else [0] * 2 * n
        return pads[:n], pads[n:]
    before, after = [], []
    for i in range(n):
        wide, length = (kernel[i] - 1) * dilations[i] + 1, x.shape[2 + i]
        total = max(0, (-(-length // strides[i]) - 1) * strides[i] + wide - length)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before, after


def _padded(x: torch.Tensor, before: list[int], after: list[int], value: float,
            most: list[int]) -> tuple[torch.Tensor, list[int]]:
    """(x padded asymmetrically, the symmetric padding up to `most` that is left to the op itself)."""
    if before == after and all(b <= m for b, m in zip(before, most, strict=True)):
        return x, before
    return F.pad(x, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair], value=value), \
        [0] * len(before)


@op("Conv", weights=(1, 2))
def conv(node, x, weight, bias=None):
    n = weight.dim() - 2
    strides, dilations = list(node.get("strides") or [1] * n), list(node.get("dilations") or [1] * n)
    x, padding = _padded(x, *_padding(node, x, list(weight.shape[2:]), strides, dilations), 0.0, list(x.shape[2:]))
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[n]
    return function(x, weight, bias, strides, padding, dilations, node.get("group", 1))


@op("ConvTranspose", weights=(1, 2))
def conv_transpose(node, x, weight, bias=None):
    node.refuse("auto_pad", "NOTSET")
    node.refuse("output_shape", None)
    n = weight.dim() - 2
    strides, dilations = list(node.get("strides") or [1] * n), list(node.get("dilations") or [1] * n)
    pads = list(node.get("pads") or [0] * 2 * n)
    if pads[:n] != pads[n:]:
        raise NotCovered(f"pads {pads} are not symmetric")
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[n]
    return function(x, weight, bias, strides, pads[:n], list(node.get("output_padding") or [0] * n),
                    node.get("group", 1), dilations)


@op("MaxPool")
def max_pool(node, x):
    if node.outputs > 1:
        raise NotCovered("its indices are read")
    kernel = list(node.get("kernel_shape"))
    n = len(kernel)
    strides, dilations = list(node.get("strides") or [1] * n), list(node.get("dilations") or [1] * n)
    x, padding = _padded(x, *_padding(node, x, kernel, strides, dilations), float("-inf"),
                         [k // 2 for k in kernel])
    function = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[n]
    return function(x, kernel, strides, padding, dilations, ceil_mode=bool(node.get("ceil_mode", 0)))


@op("AveragePool")
def average_pool(node, x):
    kernel = list(node.get("kernel_shape"))
    n = len(kernel)
    strides, counted = list(node.get("strides") or [1] * n), bool(node.get("count_include_pad", 0))
    if any(d != 1 for d in node.get("dilations") or ()):
        raise NotCovered("dilations are not covered")
    before, after = _padding(node, x, kernel, strides, [1] * n)
    if node.get("ceil_mode", 0) and any(before + after):
        raise NotCovered("ceil_mode with padding is not covered")
    average = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[n]
    most, ones = [k // 2 for k in kernel], torch.ones_like(x)
    x, padding = _padded(x, before, after, 0.0, most)
    if padding == before == after or counted:
        return average(x, kernel, strides, padding, bool(node.get("ceil_mode", 0)), counted)
    share, _ = _padded(ones, before, after, 0.0, most)  # share of each window that is not padding
    return average(x, kernel, strides) / average(share, kernel, strides)


@op("GlobalAveragePool")
def global_average_pool(node, x):
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(node, x):
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@op("LayerNormalization", weights=(1, 2))
def layer_norm(node, x, scale, bias=None):
    dims = list(x.shape[node.get("axis", -1) % x.dim():])
    epsilon = node.get("epsilon", 1e-5)
    if node.outputs > 1:
        axes = tuple(range(-len(dims), 0))
        spread = torch.rsqrt(x.var(axes, correction=0, keepdim=True) + epsilon)
        y = (x - x.mean(axes, keepdim=True)) * spread * scale
        return y if bias is None else y + bias, x.mean(axes, keepdim=True), spread
    if list(scale.shape) == dims and (bias is None or list(bias.shape) == dims):
        return F.layer_norm(x, dims, scale, bias, epsilon)
    y = F.layer_norm(x, dims, None, None, epsilon) * scale
    return y if bias is None else y + bias


@op("BatchNormalization", weights=(1, 2, 3, 4))
def batch_norm(node, x, scale, bias, mean, var):
    node.refuse("training_mode", 0)
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


@op("InstanceNormalization", weights=(1, 2))
def instance_norm(node, x, scale, bias):
    return F.group_norm(x, x.shape[1], scale, bias, node.get("epsilon", 1e-5))


@op("GroupNormalization", weights=(1, 2))
def group_norm(node, x, scale, bias):
    groups = node.get("num_groups")
    if node.opset < 21:  # one scale per group before opset 21
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return F.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@op("LpNormalization")
def lp_normalization(node, x):
    norm = torch.linalg.vector_norm(x, node.get("p", 2), node.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@op("Einsum")
def einsum(node, *xs):
    return torch.einsum(node.get("equation"), *xs)


@op("GridSample")
def grid_sample(node, x, grid):
    node.refuse("mode", "linear", "bilinear", "nearest")  # PyTorch's cubic differs at the border
    mode = "nearest" if node.get("mode") == "nearest" else "bilinear"
    return F.grid_sample(x, grid, mode, node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0)))


@op("Resize", known=(1, 2, 3))
def resize(node, x, roi=None, scales=None, sizes=None):
    node.refuse("keep_aspect_ratio_policy", "stretch")
    axes = [a % x.dim() for a in node.get("axes") or range(x.dim())]
    out, scale = list(x.shape), [1.0] * x.dim()
    for i, axis in enumerate(axes):
        n = x.shape[axis]
        out[axis] = sizes[i] if sizes else int(n * scales[i] + 1e-6)
        scale[axis] = scales[i] if scales else sizes[i] / n
        if abs(scale[axis] - out[axis] / n) > 1e-6:
            raise NotCovered(f"scale {scale[axis]} of {n} elements is not a whole number")
    if out == list(x.shape):
        return x
    if node.get("mode", "nearest") == "nearest":
        for axis, n in enumerate(out):
            if n != x.shape[axis]:
                x = choose(x, axis, _nearest(node, x.shape[axis], n))
        return x
    return _interpolate(node, x, out)


def _nearest(node, length: int, wanted: int) -> list[int]:
    """Source index of each output element along one axis."""
    i, scale = np.arange(wanted, dtype=np.float64), wanted / length
    transform, rounding = node.get("coordinate_transformation_mode", "half_pixel"), node.get("nearest_mode",
                                                                                            "round_prefer_floor")
    places = {"half_pixel": (i + 0.5) / scale - 0.5, "asymmetric": i / scale,
              "pytorch_half_pixel": (i + 0.5) / scale - 0.5 if wanted > 1 else i * 0,
              "align_corners": i * (length - 1) / max(1, wanted - 1)}
    if transform not in places:
        raise NotCovered(f"coordinate_transformation_mode={transform!r} is not covered")
    p = places[transform]
    rounded = {"round_prefer_floor": np.ceil(p - 0.5), "round_prefer_ceil": np.floor(p + 0.5), "floor": np.floor(p),
               "ceil": np.ceil(p)}[rounding]
    return np.clip(rounded, 0, length - 1).astype(int).tolist()


def _interpolate(node, x: torch.Tensor, out: list[int]) -> torch.Tensor:
    mode, transform = node.get("mode"), node.get("coordinate_transformation_mode", "half_pixel")
    node.refuse("antialias", 0)  # PyTorch's weights differ
    node.refuse("exclude_outside", 0)
    known = ("half_pixel", "pytorch_half_pixel", "align_corners")
    if transform not in known or x.dim() != 4 or out[:2] != list(x.shape[:2]):
        raise NotCovered(f"mode={mode!r} with {transform!r} from {list(x.shape)} to {out} is not covered")
    if transform == "pytorch_half_pixel" and 1 in out[2:]:
        raise NotCovered("pytorch_half_pixel to one element is not covered")
    node.refuse("cubic_coeff_a", -0.75)  # PyTorch's
    return F.interpolate(x, out[2:], mode="bicubic" if mode == "cubic" else "bilinear",
                         align_corners=transform == "align_corners")
