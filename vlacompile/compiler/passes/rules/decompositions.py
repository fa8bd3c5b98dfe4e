"""ATen's ops for which neither torch.onnx nor PyTorch has other ops, written with ops that engines have. Each takes
what the op takes, gives what it gives, at shapes that are known, and holds no tensors of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ATEN = torch.ops.aten
# Rows beyond which PyTorch's cdist computes p=2 by a matrix product.
_CDIST_ROWS = 25


def _scan(parts: tuple[Tensor, ...], dim: int, combine) -> tuple[Tensor, ...]:
    """Of every position what `combine(earlier, later)` makes of all up to it: log2(n) steps, not n."""
    size, shift = parts[0].shape[dim], 1
    while shift < size:
        earlier = tuple(p.narrow(dim, 0, size - shift) for p in parts)
        later = tuple(p.narrow(dim, shift, size - shift) for p in parts)
        both = combine(earlier, later)
        parts = tuple(torch.cat([p.narrow(dim, 0, shift), b], dim) for p, b in zip(parts, both, strict=True))
        shift *= 2
    return parts


def cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    integers = not (x.is_floating_point() or x.is_complex())
    x = x.to(dtype or (torch.int64 if integers else x.dtype))
    return x if x.dim() == 0 else _scan((x,), dim, lambda a, b: (a[0] * b[0],))[0]


def _running(x: Tensor, dim: int, beats) -> tuple[Tensor, Tensor]:
    if x.dim() == 0:
        return x.clone(), torch.zeros_like(x, dtype=torch.int64)
    shape = [1] * x.dim()
    shape[dim] = x.shape[dim]
    places = torch.arange(x.shape[dim]).reshape(shape).expand(x.shape)

    def combine(earlier, later):
        new = beats(later[0], earlier[0])
        if x.is_floating_point():  # the first NaN stays
            new = (new | later[0].isnan()) & (later[0].isnan() | ~earlier[0].isnan())
        return tuple(torch.where(new, b, a) for a, b in zip(earlier, later, strict=True))

    return _scan((x, places), dim, combine)


def cummax(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running(x, dim, torch.ge)


def cummin(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running(x, dim, torch.le)


def searchsorted(ordered: Tensor, x: Tensor, *, out_int32: bool = False, right: bool = False, side: str | None = None,
                 sorter: Tensor | None = None) -> Tensor:
    """How many of the ordered numbers lie before x; NaN lies behind all."""
    if sorter is not None:
        ordered = ordered.gather(-1, sorter)
    if ordered.dim() > 1:
        ordered = ordered.unsqueeze(-2)  # [...,1,n] beside [...,m,1]
    x = x.unsqueeze(-1)
    before = ~(ordered > x) if right or side == "right" else ~(ordered >= x)
    return before.sum(-1, dtype=torch.int64).to(torch.int32 if out_int32 else torch.int64)


def bucketize(x: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    return searchsorted(boundaries, x, out_int32=out_int32, right=right)


def histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    flat, low, high = x.reshape(-1), min, max
    if min == max:  # those of the values; of a single value, one to each side
        low, high = flat.amin(), flat.amax()
        single = (low == high).to(x.dtype)
        low, high = low - single, high + single
    place = ((flat - low) * bins / (high - low)).floor().clamp(max=bins - 1)  # the last bin holds its end
    inside = (flat >= low) & (flat <= high)
    return ((place.unsqueeze(0) == torch.arange(bins).unsqueeze(1)) & inside).to(x.dtype).sum(1)


def cdist(a: Tensor, b: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:
    rows = max(a.shape[-2], b.shape[-2])
    if p == 2.0 and compute_mode != 2 and (compute_mode == 1 or rows > _CDIST_ROWS):
        squares = a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2)
        return (squares - 2 * (a @ b.transpose(-1, -2))).clamp_min(0.0).sqrt()
    apart = (a.unsqueeze(-2) - b.unsqueeze(-3)).abs()  # [...,n,m,d]
    if p == 2.0:
        return apart.square().sum(-1).sqrt()
    if p == 1.0:
        return apart.sum(-1)
    if p == 0.0:
        return (apart != 0).to(a.dtype).sum(-1)
    return apart.amax(-1) if math.isinf(p) else apart.pow(p).sum(-1).pow(1 / p)


def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if x.dim() == 0:
        return x.clone(), torch.zeros_like(x, dtype=torch.int64)
    values, places = torch.sort(x, dim)
    return tuple(t.narrow(dim, k - 1, 1) if keepdim else t.select(dim, k - 1) for t in (values, places))


def median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of two in the middle; the first NaN where there is one."""
    if x.dim() == 0:
        return x.clone(), torch.zeros_like(x, dtype=torch.int64)
    found = kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)
    if not x.is_floating_point():
        return found
    broken = x.isnan()
    first = broken.to(torch.int32).argmax(dim, keepdim=True)
    wrong = broken.any(dim, keepdim=True)
    value = x.gather(dim, first)
    wrong, value, first = ((t if keepdim else t.squeeze(dim)) for t in (wrong, value, first))
    return torch.where(wrong, value, found[0]), torch.where(wrong, first, found[1])


def nanmedian(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if x.dim() == 0 or not x.is_floating_point():
        return median(x, dim, keepdim)
    values, places = torch.sort(x, dim)  # NaN last
    middle = ((~x.isnan()).sum(dim, keepdim=True) - 1).clamp(min=0).div(2, rounding_mode="floor")
    found = (t.gather(dim, middle) for t in (values, places))
    return tuple(t if keepdim else t.squeeze(dim) for t in found)


def hypot(a: Tensor, b: Tensor) -> Tensor:
    """Without squares that overflow."""
    a, b = torch.broadcast_tensors(a.abs(), b.abs())
    large, small = torch.maximum(a, b), torch.minimum(a, b)
    ratio = torch.where(large == 0, torch.zeros_like(small), small / large)
    length = large * (1 + ratio.square()).sqrt()
    return torch.where((a == math.inf) | (b == math.inf), torch.full_like(length, math.inf), length)


def signbit(x: Tensor) -> Tensor:
    """-0.0 is told by its reciprocal."""
    return (x < 0) | ((x == 0) & (x.reciprocal() < 0)) if x.is_floating_point() else x < 0


def copysign(x: Tensor, sign: Tensor | float) -> Tensor:
    if not isinstance(sign, Tensor):
        return -x.abs() if math.copysign(1.0, sign) < 0 else x.abs()
    return torch.where(signbit(sign), -x.abs(), x.abs())


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """Zeros have signs, which say on which side of the cut an angle lies."""
    dtype = torch.result_type(y, x)
    y, x = (t.to(dtype if dtype.is_floating_point else torch.get_default_dtype()) for t in (y, x))
    rise, run = y.abs(), x.abs()
    angle = torch.atan(torch.where(rise == run, 1.0, rise / run))  # of two infinities too
    angle = torch.where(rise == 0, 0.0, angle)
    angle = torch.where(signbit(x), math.pi - angle, angle)
    return torch.where(signbit(y), -angle, angle)


# Lanczos' approximation with g = 7 and nine terms (Godfrey 2001): 1e-15 in exact arithmetic.
_LANCZOS = (0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
            12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7)


def lgamma(x: Tensor) -> Tensor:
    below = x < 0.5
    z = torch.where(below, 1 - x, x) - 1
    series = _LANCZOS[0] + sum(c / (z + i) for i, c in enumerate(_LANCZOS[1:], 1))
    t = z + 7.5
    above = 0.5 * math.log(2 * math.pi) + (z + 0.5) * t.log() - t + series.log()
    above = torch.where(z == math.inf, z, above)
    mirrored = math.log(math.pi) - (math.pi * (x - x.round())).sin().abs().log() - above
    return torch.where(below, mirrored, above)


def meshgrid(tensors: list[Tensor], indexing: str = "ij") -> list[Tensor]:
    order = [1, 0, *range(2, len(tensors))] if indexing == "xy" and len(tensors) > 1 else range(len(tensors))
    sizes = [tensors[i].numel() for i in order]
    out = []
    for i, t in enumerate(tensors):
        axis = list(order).index(i)
        out.append(t.reshape([-1 if k == axis else 1 for k in range(len(sizes))]).expand(sizes))
    return out


def rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator=None) -> Tensor:
    if training:
        raise NotImplementedError("its slope is random")
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def sort(x: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """ONNX's sorts keep the order of equal elements."""
    return torch.sort(x, dim, descending)


def scatter(x: Tensor, dim: int, index: Tensor, source: Tensor, *, reduce: str) -> Tensor:
    return x.scatter_reduce(dim, index, source, {"add": "sum", "multiply": "prod"}[reduce])


_NEUTRAL = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}


def scatter_reduce(x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """ONNX's scatters start from what is there, and have no mean."""
    start = x
    if not include_self:
        neutral = _NEUTRAL[reduce]
        if math.isinf(neutral) and not x.is_floating_point():
            neutral = torch.iinfo(x.dtype).min if neutral < 0 else torch.iinfo(x.dtype).max
        start = x.scatter(dim, index, neutral)
    if reduce != "mean":
        return start.scatter_reduce(dim, index, source, reduce)
    count = torch.zeros_like(x).scatter_reduce(dim, index, torch.ones_like(source), "sum")
    count = count + 1 if include_self else count.clamp(min=1)
    total = start.scatter_reduce(dim, index, source, "sum")
    return total / count if x.is_floating_point() else total.div(count, rounding_mode="floor")


def fake_quantize(x: Tensor, scale: float | Tensor, zero_point: int | Tensor, quant_min: int, quant_max: int) -> Tensor:
    places = (x * (1.0 / scale)).round() + zero_point
    return (places.clamp(float(quant_min), float(quant_max)) - zero_point) * scale


def pdist(x: Tensor, p: float = 2.0) -> Tensor:
    rows, columns = torch.triu_indices(x.shape[0], x.shape[0], 1)
    return cdist(x, x, p, 2)[rows, columns]


def log_sigmoid(x: Tensor) -> Tensor:
    return x.clamp(max=0) - torch.log1p(torch.exp(-x.abs()))


def logaddexp(one: Tensor, other: Tensor) -> Tensor:
    """Shifted by the larger; equal infinities have no difference."""
    apart = torch.where(one == other, 0.0, (one - other).abs())
    return torch.maximum(one, other) + torch.log1p(torch.exp(-apart))


def logaddexp2(one: Tensor, other: Tensor) -> Tensor:
    apart = torch.where(one == other, 0.0, (one - other).abs())
    return torch.maximum(one, other) + torch.log2(1 + torch.exp2(-apart))


# M. Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011), single precision: where
# w = -log(1 - x^2) is below 5, and beyond.
_NEAR = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
         0.246640727, 1.50140941)
_FAR = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
        1.00167406, 2.83297682)


def erfinv(x: Tensor) -> Tensor:
    w = -((1.0 - x) * (1.0 + x)).log()
    near, far = w - 2.5, w.clamp(min=5.0).sqrt() - 3.0
    of_near, of_far = (torch.full((), c[0], dtype=x.dtype) for c in (_NEAR, _FAR))
    for a, b in zip(_NEAR[1:], _FAR[1:], strict=True):
        of_near, of_far = of_near * near + a, of_far * far + b
    found = torch.where(w < 5.0, of_near, of_far) * x
    return torch.where(w.isinf(), x * math.inf, found)


WRITTEN = {
    _ATEN.log_sigmoid.default: log_sigmoid,
    _ATEN.logaddexp.default: logaddexp,
    _ATEN.logaddexp2.default: logaddexp2,
    _ATEN.rrelu.default: rrelu,
    _ATEN.sort.stable: sort,
    _ATEN.scatter.reduce: scatter,
    _ATEN.scatter_reduce.two: scatter_reduce,
    _ATEN.fake_quantize_per_tensor_affine.default: fake_quantize,
    _ATEN.fake_quantize_per_tensor_affine.tensor_qparams: fake_quantize,
    _ATEN._pdist_forward.default: pdist,
    _ATEN.pdist.default: pdist,
    _ATEN.cumprod.default: cumprod,
    _ATEN.cummax.default: cummax,
    _ATEN.cummin.default: cummin,
    _ATEN.searchsorted.Tensor: searchsorted,
    _ATEN.bucketize.Tensor: bucketize,
    _ATEN.histc.default: histc,
    _ATEN.cdist.default: cdist,
    _ATEN._cdist_forward.default: cdist,
    _ATEN.kthvalue.default: kthvalue,
    _ATEN.median.dim: median,
    _ATEN.median.default: lambda x: median(x.reshape(-1), 0)[0],
    _ATEN.nanmedian.dim: nanmedian,
    _ATEN.nanmedian.default: lambda x: nanmedian(x.reshape(-1), 0)[0],
    _ATEN.hypot.default: hypot,
    _ATEN.signbit.default: signbit,
    _ATEN.copysign.Tensor: copysign,
    _ATEN.copysign.Scalar: copysign,
    _ATEN.atan2.default: atan2,
    _ATEN.lgamma.default: lgamma,
    _ATEN.special_gammaln.default: lgamma,
    _ATEN.erfinv.default: erfinv,
    _ATEN.meshgrid.default: meshgrid,
    _ATEN.meshgrid.indexing: lambda tensors, *, indexing: meshgrid(tensors, indexing),
}
