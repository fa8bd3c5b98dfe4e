"""Ops under one name each: PyTorch has several for some (`greater` and `gt`), and NumPy's functions call the other one.

Must not know graphs.
"""

from __future__ import annotations

import functools

import torch

# Each is documented as an alias.
_NAMES = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "clip": "clamp", "concat": "cat", "concatenate": "cat", "divide": "div",
    "fix": "trunc", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "linalg_matmul": "matmul",
    "moveaxis": "movedim", "multiply": "mul", "negative": "neg", "not_equal": "ne", "row_stack": "vstack",
    "special_digamma": "digamma", "special_erf": "erf", "special_erfc": "erfc", "special_erfinv": "erfinv",
    "special_exp2": "exp2", "special_expit": "sigmoid", "special_expm1": "expm1", "special_gammaln": "lgamma",
    "special_i0": "i0", "special_log1p": "log1p", "special_logit": "logit", "special_logsumexp": "logsumexp",
    "special_psi": "digamma", "special_round": "round", "special_sinc": "sinc", "special_softmax": "softmax",
    "special_xlogy": "xlogy", "subtract": "sub", "swapaxes": "transpose", "swapdims": "transpose",
    "true_divide": "div"}


@functools.cache
def of_one_name(func):
    """The op that `func` is another name of, with the same arguments; `func` if it is none."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return func
    name = func.overloadpacket.__name__
    written = name.endswith("_")
    other = _NAMES.get(name.removesuffix("_"))
    if other is None:
        return func
    packet = getattr(torch.ops.aten, other + "_" * written)
    return next((o for which in packet.overloads() if _arguments(o := getattr(packet, which)) == _arguments(func)),
                func)


def _arguments(op) -> list[tuple[str, bool]]:
    return [(str(a.type), a.kwarg_only) for a in op._schema.arguments]
