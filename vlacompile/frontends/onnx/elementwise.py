"""Elementwise ONNX ops, and reductions."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from vlacompile.frontends.onnx.ops import NotCovered, axes_of, op

# TensorProto.DataType
TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool,
         10: torch.float16, 11: torch.float64, 16: torch.bfloat16}

_UNARY = {
    "Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt, "Floor": torch.floor,
    "Reciprocal": torch.reciprocal, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign, "Sin": torch.sin,
    "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh,
    "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh, "Tanh": torch.tanh,
    "Erf": torch.erf, "Sigmoid": torch.sigmoid, "Relu": torch.relu, "Not": torch.logical_not, "IsNaN": torch.isnan,
    "BitwiseNot": torch.bitwise_not, "Softplus": F.softplus, "Softsign": F.softsign, "HardSwish": F.hardswish,
    "Mish": F.mish,
}
_BINARY = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "And": torch.logical_and, "Or": torch.logical_or,
    "Xor": torch.logical_xor, "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt,
    "LessOrEqual": torch.le, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
for _name, _function in _UNARY.items():
    op(_name)(lambda node, x, f=_function: f(x))
for _name, _function in _BINARY.items():
    op(_name)(lambda node, a, b, f=_function: f(a, b))


@op("Identity")
def identity(node, x):
    return x


@op("Dropout", maybe=(1,), known=(2,))
def dropout(node, x, ratio=None, training=None):
    if training:
        raise NotCovered("training_mode is set")
    if node.outputs > 1:
        raise NotCovered("its mask is read")
    return x


@op("Div")
def div(node, a, b):
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@op("Pow", maybe=(1,))
def pow_(node, base, exponent):
    if isinstance(exponent, list):
        exponent = torch.tensor(exponent, device=base.device)
    return torch.pow(base, exponent).to(base.dtype)


@op("Mod")
def mod(node, a, b):
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


@op("IsInf")
def isinf(node, x):
    signs = [v for name, v in (("detect_negative", -torch.inf), ("detect_positive", torch.inf)) if node.get(name, 1)]
    return torch.isinf(x) if len(signs) == 2 else x == signs[0] if signs else torch.zeros_like(x, dtype=torch.bool)


@op("Max")
def maximum(node, *xs):
    return functools.reduce(torch.maximum, xs)


@op("Min")
def minimum(node, *xs):
    return functools.reduce(torch.minimum, xs)


@op("Sum")
def sum_(node, *xs):
    return functools.reduce(torch.add, xs)


@op("Mean")
def mean(node, *xs):
    return functools.reduce(torch.add, xs) / len(xs)


@op("Clip", maybe=(1, 2))
def clip(node, x, low=None, high=None):
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        x = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype, device=x.device))
        return x if high is None else torch.minimum(x, torch.as_tensor(high, dtype=x.dtype, device=x.device))
    return x if low is None and high is None else torch.clamp(x, low, high)


@op("Where")
def where(node, condition, a, b):
    return torch.where(condition, a, b)


@op("Cast")
def cast(node, x):
    if node.get("to") not in TYPES:
        raise NotCovered(f"element type {node.get('to')} is not covered")
    return x.to(TYPES[node.get("to")])


@op("CastLike")
def cast_like(node, x, like):
    return x.to(like.dtype)


@op("Gelu")
def gelu(node, x):
    return F.gelu(x, approximate=node.get("approximate", "none"))


@op("LeakyRelu")
def leaky_relu(node, x):
    return F.leaky_relu(x, node.get("alpha", 0.01))


@op("PRelu")
def prelu(node, x, slope):
    return torch.where(x < 0, x * slope, x)


@op("Elu")
def elu(node, x):
    return F.elu(x, node.get("alpha", 1.0))


@op("Selu")
def selu(node, x):
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return gamma * torch.where(x > 0, x, alpha * torch.exp(x) - alpha)


@op("HardSigmoid")
def hard_sigmoid(node, x):
    return torch.clamp(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0.0, 1.0)


@op("Softmax")
def softmax(node, x):
    return torch.softmax(x, node.get("axis", -1))


@op("LogSoftmax")
def log_softmax(node, x):
    return torch.log_softmax(x, node.get("axis", -1))


@op("CumSum", known=(1,))
def cumsum(node, x, axis):
    axis = axis if isinstance(axis, int) else axis[0]
    y = x.flip(axis) if node.get("reverse", 0) else x
    total = torch.cumsum(y, axis, dtype=x.dtype)
    if node.get("exclusive", 0):
        total = total - y
    return total.flip(axis) if node.get("reverse", 0) else total


_REDUCTIONS = {
    "ReduceSum": lambda x, d, k: torch.sum(x, d, keepdim=k, dtype=x.dtype),
    "ReduceMean": lambda x, d, k: torch.mean(x, d, keepdim=k),
    "ReduceMax": lambda x, d, k: torch.amax(x, d, keepdim=k),
    "ReduceMin": lambda x, d, k: torch.amin(x, d, keepdim=k),
    "ReduceL1": lambda x, d, k: torch.sum(torch.abs(x), d, keepdim=k),
    "ReduceL2": lambda x, d, k: torch.sqrt(torch.sum(x * x, d, keepdim=k)),
    "ReduceSumSquare": lambda x, d, k: torch.sum(x * x, d, keepdim=k),
    "ReduceLogSumExp": lambda x, d, k: torch.logsumexp(x, d, keepdim=k),
    "ReduceProd": lambda x, d, k: functools.reduce(lambda y, a: torch.prod(y, a, keepdim=True), d, x) if k else
    functools.reduce(torch.prod, sorted(d, reverse=True), x),
}


def _reduction(name: str):
    function = _REDUCTIONS[name]

    def reduce(node, x, axes=None):
        axes = node.get("axes") if axes is None else axes  # an attribute before opset 18 (ReduceSum: 13)
        if not axes:
            if node.get("noop_with_empty_axes", 0):
                return x
            axes = range(x.dim())
        return function(x, axes_of(x, axes), bool(node.get("keepdims", 1)))

    return reduce


for _name in _REDUCTIONS:
    op(_name, known=(1,))(_reduction(_name))


def _extremum(function):
    def find(node, x):
        node.refuse("select_last_index", 0)
        return function(x, node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return find


op("ArgMax")(_extremum(torch.argmax))
op("ArgMin")(_extremum(torch.argmin))


@op("TopK", known=(1,))
def topk(node, x, k):
    k = k if isinstance(k, int) else k[0]
    return tuple(torch.topk(x, k, node.get("axis", -1), largest=bool(node.get("largest", 1)), sorted=True))

