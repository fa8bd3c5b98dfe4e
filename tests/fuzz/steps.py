"""Random lines between the encoders and the heads: elementwise math, norms, shapes, writes in place, tables.

Attention and recurrent cells are in attention.py, loops in loops.py.
"""

from __future__ import annotations

from tests.fuzz.text import WIDTH, Choices, Text, Value

ACTIVATIONS = ("F.relu({})", "torch.tanh({})", "F.gelu({})", "F.silu({})", "F.gelu({}, approximate='tanh')",
               "torch.sigmoid({})", "F.elu({})", "F.softplus({})", "F.mish({})", "F.hardswish({})",
               "F.leaky_relu({}, 0.1)", "{}.softmax(-1)", "{}.clamp(-1, 1)", "F.log_softmax({}, -1)", "torch.sin({})")


def feed_forward(text: Text, choices: Choices) -> None:
    """A linear layer with an activation, perhaps the same layer as before, perhaps a residual."""
    value = text.any(choices)
    value = value if len(value.shape) < 4 else text.tokens(value)
    fitting = [n for n, i, _ in text.linears if i == value.shape[-1]]
    again = choices.once_in(3) and bool(fitting)
    layer = choices.pick(fitting) if again else text.linear(value.shape[-1], WIDTH, choices.pick([True, False]))
    width = next(o for n, _, o in text.linears if n == layer)
    expression = choices.pick(ACTIVATIONS).format(f"{layer}({value})")
    if width == value.shape[-1] and choices.once_in(2):
        expression = f"{value} + {expression}"
    text.add(text.let(expression, (*value.shape[:-1], width)))


def combine(text: Text, choices: Choices) -> None:
    """Two values by an operator that broadcasts."""
    a, b = text.any(choices), text.any(choices)
    if len(a.shape) == 2 and len(b.shape) == 2:
        a, b = text.of_width(a, WIDTH), text.of_width(b, WIDTH)
        shape: tuple[int, ...] = (1, WIDTH)
    else:
        a, b = text.tokens(a), text.tokens(b)
        if 1 not in (a.shape[1], b.shape[1]) and a.shape[1] != b.shape[1]:
            b = text.let(f"{b}.mean(1, keepdim=True)", (1, 1, WIDTH))
        shape = (1, max(a.shape[1], b.shape[1]), WIDTH)
    how = choices.pick(["{a} + {b}", "{a} * {b}", "{a} - {b}", "torch.maximum({a}, {b})", "{a} * torch.sigmoid({b})",
                        "torch.where({b} > 0, {a}, {b})", "{a} / ({b}.abs() + 1)", "torch.lerp({a}, {b}, 0.3)",
                        "torch.atan2({a}, {b} + 3)", "{a}.addcmul({b}, {b}, value=0.5)", "torch.minimum({a}, {b})",
                        "torch.hypot({a}, {b})", "{a}.masked_fill({b} > 0.5, 0.0)"])
    text.add(text.let(how.format(a=a, b=b), shape))


def modulate(text: Text, choices: Choices) -> None:
    """FiLM and adaLN: a vector gives scale and shift of tokens."""
    value, by = text.tokens(text.any(choices)), text.vector(text.any(choices), choices)
    layer = text.linear(WIDTH, 2 * WIDTH)
    scale, shift = text.fresh("scale"), text.fresh("shift")
    way = choices.pick(["chunk(2, -1)", f"split({WIDTH}, dim=-1)", "tensor_split(2, dim=-1)",
                        f"view(1, 2, {WIDTH}).unbind(1)"])
    text.line(f"{scale}, {shift} = {layer}(F.silu({by})).{way}")
    norm = choices.pick([f"F.layer_norm({value}, ({WIDTH},))", f"{value}"])
    text.add(text.let(f"{norm} * (1 + {scale}[:, None]) + {shift}[:, None]", value.shape))


def normalise(text: Text, choices: Choices) -> None:
    value = text.any(choices)
    if len(value.shape) == 4:
        c, several = value.shape[1], value.shape[2] * value.shape[3] > 1  # PyTorch normalises no instance of one pixel
        layer = choices.pick([f"nn.BatchNorm2d({c})", f"nn.GroupNorm(1, {c})",
                              f"nn.InstanceNorm2d({c}, affine=True)" if several else "nn.Identity()"])
        text.add(text.let(f"{text.member('norm', layer)}({value})", value.shape))
        return
    d = value.shape[-1]
    eps = choices.pick(["1e-5", "1e-6", "1e-8", "1e-12"])
    kind = choices.pick(["layer", "rms", "written", "unit", "group", "batch", "instance", "whiten"])
    if kind in ("group", "batch", "instance"):
        value = text.tokens(value)
        layer = {"group": f"nn.GroupNorm(2, {WIDTH})", "batch": f"nn.BatchNorm1d({WIDTH})",
                 "instance": f"nn.InstanceNorm1d({WIDTH})"}[kind]
        if kind == "instance" and value.shape[1] == 1:
            layer = f"nn.LayerNorm({WIDTH})"
            text.add(text.let(f"{text.member('norm', layer)}({value})", value.shape))
            return
        text.add(text.let(f"{text.member('norm', layer)}({value}.transpose(1, 2)).transpose(1, 2)", value.shape))
        return
    if kind == "layer":
        expression = f"{text.member('norm', f'nn.LayerNorm({d}, eps={eps})')}({value})"
    elif kind == "rms":
        expression = f"{text.member('norm', f'nn.RMSNorm({d}, eps={eps})')}({value})"
    elif kind == "written":
        weight = text.member("weight", f"nn.Parameter(torch.rand({d}) + 0.5)")
        expression = f"{value} * torch.rsqrt({value}.pow(2).mean(-1, keepdim=True) + {eps}) * {weight}"
    elif kind == "unit":
        expression = choices.pick([f"F.normalize({value}, dim=-1, eps=1e-12)",
                                   f"{value} / ({value}.norm(dim=-1, keepdim=True) + {eps})",
                                   f"{value} / {value}.norm(dim=-1, keepdim=True).clamp(min={eps})"])
    else:
        mean = f"{value}.mean(-1, keepdim=True)"
        expression = f"({value} - {mean}) / ({value}.std(-1, keepdim=True, unbiased=False) + {eps})"
    text.add(text.let(expression, value.shape))


def join_and_take(text: Text, choices: Choices) -> None:
    """Several values concatenated, then taken apart again."""
    count = choices.pick([2, 3])
    if choices.once_in(3):
        parts = [text.vector(text.any(choices), choices) for _ in range(count)]
        joined, axis, length = text.let(f"torch.cat([{', '.join(map(str, parts))}], -1)", (1, count * WIDTH)), 1, 0
        sizes = [WIDTH] * count
    else:
        parts = [text.tokens(text.any(choices)) for _ in range(count)]
        sizes, axis = [p.shape[1] for p in parts], 1
        length = sum(sizes)
        joined = text.let(f"torch.cat([{', '.join(map(str, parts))}], dim=1)", (1, length, WIDTH))
    if choices.once_in(2):
        joined = text.let(f"{text.linear(joined.shape[-1], joined.shape[-1])}({joined})", joined.shape)
    how = choices.pick(["whole", "split", "slices", "chunk", "narrow", "stack", "permuted"])
    if how == "whole":
        text.add(joined)
    elif how == "split":
        names = [text.fresh("part") for _ in sizes]
        text.line(f"{', '.join(names)} = torch.split({joined}, {sizes}, dim={axis})")
        for name, size in zip(names, sizes, strict=True):
            text.add(Value(name, (1, size, *joined.shape[2:])))
    elif how == "slices":
        start = choices.pick([0, 1])
        stop = joined.shape[1] - choices.pick([0, 1])
        if stop > start:
            text.add(text.let(f"{joined}[:, {start}:{stop}]", (1, stop - start, *joined.shape[2:])))
    elif how == "chunk":
        total = joined.shape[1]
        names = [text.fresh("part") for _ in range(2)] if total > 1 else []
        if names:
            half = -(-total // 2)
            text.line(f"{', '.join(names)} = {joined}.chunk(2, dim={axis})")
            text.add(Value(names[1], (1, total - half, *joined.shape[2:])))
            text.add(Value(names[0], (1, half, *joined.shape[2:])))
    elif how == "narrow":
        text.add(text.let(f"{joined}.narrow(1, {joined.shape[1] - 1}, 1)", (1, 1, *joined.shape[2:])))
    elif how == "stack":
        equal = [text.let(f"{p}.mean(1)" if len(p.shape) == 3 else str(p), (1, WIDTH)) for p in parts]
        stacked = text.let(f"torch.stack([{', '.join(map(str, equal))}], 1)", (1, count, WIDTH))
        text.add(stacked)
        text.add(text.let(f"{stacked}[:, {choices.pick(range(count))}]", (1, WIDTH)))
    else:
        order = list(range(joined.shape[1]))[::-1]
        text.add(text.let(f"{joined}[:, {order}]", joined.shape))


def write_in_place(text: Text, choices: Choices) -> None:
    """A copy of a value is changed through a view of it."""
    value, other = text.any(choices), text.any(choices)
    value = text.tokens(value)
    other = text.vector(other, choices)
    t = value.shape[1]
    made = choices.pick([f"{value}.clone()", f"torch.zeros_like({value})", f"{value} + 0", f"{value} * 1.0"])
    row = choices.pick(range(t))
    how = choices.pick(["row", "add", "columns", "view", "fill", "masked", "transposed", "constant", "select", "mask"])
    copy = text.let(f"({made}).contiguous()" if how == "view" else made, value.shape)
    text.line({"row": f"{copy}[:, {row}] = {other}", "add": f"{copy}[:, {row}:] += {other}",
               "columns": f"{copy}[..., :2].mul_(0.5)", "view": f"{copy}.view(1, -1)[:, ::3] = 0.25",
               "fill": f"{copy}[0, {row}].fill_(1.5)", "masked": f"{copy}.masked_fill_({copy} > 0.3, -1.0)",
               "transposed": f"{copy}.transpose(1, 2)[:, 1] = {other}.mean()",
               "constant": f"{copy}[:, :, 3:5] = torch.tensor([0.5, -0.5])",
               "select": f"{copy}.select(1, {row}).add_({other}, alpha=2)",
               "mask": f"{copy}[{copy} < -0.5] = 0.0"}[how])
    text.add(copy)


def table(text: Text, choices: Choices) -> None:
    """Rows of a constant table, by a constant or by an input, and rows of a value."""
    value = text.tokens(text.any(choices))
    t = value.shape[1]
    how = choices.pick(["positions", "arange", "gather", "ids", "argmax", "sinusoidal", "rolled", "sorted"])
    if how == "positions":
        expression = f"{value} + {text.buffer(f'torch.randn(16, {WIDTH})')}[:{t}]" if t <= 16 else f"{value} * 1.5"
    elif how == "arange":
        weights = text.member("embedding", f"nn.Embedding({t}, {WIDTH})")
        expression = f"{value} + {weights}(torch.arange({t}))"
    elif how == "gather":
        index = f"torch.arange({t}).flip(0).view(1, {t}, 1).expand(1, {t}, {WIDTH})"
        expression = f"{value}.gather(1, {index})"
    elif how == "ids" and text.ids:
        ids = choices.pick(text.ids)
        weights = text.buffer(f"torch.randn(32, {WIDTH})")
        expression = f"{value} + {weights}[{ids}.long()].mean(1, keepdim=True)"
    elif how == "argmax":
        weights = text.buffer(f"torch.randn({WIDTH}, {WIDTH})")
        expression = f"{weights}[{value}.argmax(-1)]"
    elif how == "sinusoidal":
        half = WIDTH // 2
        angles = text.let(f"torch.arange({t}).float()[:, None] * torch.exp(torch.arange({half}) * "
                          f"(-math.log(10000.0) / {half}))", (t, half))
        expression = f"{value} + torch.cat([{angles}.sin(), {angles}.cos()], -1)"
    elif how == "rolled":
        expression = choices.pick([f"torch.roll({value}, 1, dims=1)", f"{value}.flip(1)", f"{value}.flip([-1])"])
    else:
        expression = f"{value}.sort(dim=-1)[0]"
    text.add(text.let(expression, value.shape))


def reduce(text: Text, choices: Choices) -> None:
    value = text.tokens(text.any(choices))
    t = value.shape[1]
    how = choices.pick(["{}.mean(1)", "{}.amax(1)", "{}.sum(1)", "{}.max(dim=1)[0]", "torch.logsumexp({}, 1)",
                        "{}.cumsum(1)", "{}.softmax(1)", "{}.var(1, unbiased=False)", "{}.prod(1)",
                        "{}.abs().sum(1).clamp(min=1e-6).log()", "torch.linalg.vector_norm({}, dim=1)",
                        "{}.topk(2, dim=-1)[0]", "{}.std(-1, unbiased=False)"])
    shape = (value.shape if "cumsum" in how or "softmax" in how else (1, t, 2) if "topk" in how else
             (1, t) if "std" in how else (1, WIDTH))
    if how == "{}.std(-1, unbiased=False)":
        text.add(text.let(how.format(value), shape))
        return
    text.add(text.let(how.format(value), shape))


def product(text: Text, choices: Choices) -> None:
    a, b = text.tokens(text.any(choices)), text.tokens(text.any(choices))
    n, m = a.shape[1], b.shape[1]
    how = choices.pick(["weights", "einsum", "outer", "bmm"])
    if how == "einsum":
        text.add(text.let(f"torch.einsum('bnd,bmd->bnm', {a}, {b}) / math.sqrt({WIDTH})", (1, n, m)))
    elif how == "weights":
        weights = text.let(f"({a} @ {b}.transpose(-1, -2)).softmax(-1)", (1, n, m))
        text.add(text.let(f"{weights} @ {b}", (1, n, WIDTH)))
    elif how == "bmm":
        text.add(text.let(f"torch.bmm({a}.transpose(1, 2), {a}) / {n}", (1, WIDTH, WIDTH)))
    else:
        text.add(text.let(f"{a}.mean(1)[:, :, None] * {b}.mean(1)[:, None, :]", (1, WIDTH, WIDTH)))


def extreme(text: Text, choices: Choices) -> None:
    """Tiny and huge constants."""
    value = text.any(choices)
    how = choices.pick(["{v} / ({v}.abs() + 1e-8)", "torch.log({v}.abs() + 1e-8)", "torch.rsqrt({v} * {v} + 1e-12)",
                        "({v} * 1000 + 2048).div(1000)", "torch.exp({v}.clamp(max=5))", "({v} * 1e4).tanh()",
                        "{v}.clamp(min=1e-12).sqrt()", "torch.nan_to_num({v}.abs().log(), neginf=-10.0)",
                        "torch.where({v} > 0, {v}, -1e9).softmax(-1)", "{v}.masked_fill({v} < 0, float('-inf'))"
                        ".softmax(-1).nan_to_num(0.0)", "({v} * 1e-6) * 1e6", "torch.expm1({v} * 1e-3) * 1e3",
                        "torch.log1p({v}.abs() * 1e-4) * 1e4", "({v} * 20).round() / 20", "torch.fmod({v}, 0.7)",
                        "torch.remainder({v}, 0.7)", "torch.erf({v})", "{v}.abs().pow(1.5)",
                        "{v}.sign() * {v}.square()", "torch.floor({v} * 3) / 3", "({v} + 1e4) - 1e4",
                        "{v} * 1e-5 + 40"])
    text.add(text.let(how.format(v=value), value.shape))


def reshape(text: Text, choices: Choices) -> None:
    value = text.tokens(text.any(choices))
    t = value.shape[1]
    how = choices.pick(["heads", "repeat", "pad", "interleave", "unfold", "expand", "every", "tril", "square"])
    if how == "heads":
        half = WIDTH // 2
        text.add(text.let(f"{value}.view(1, {t}, 2, {half}).permute(0, 2, 1, 3).reshape(1, {2 * t}, {half})",
                          (1, 2 * t, half)))
    elif how == "repeat":
        text.add(text.let(f"{value}.repeat(1, 2, 1)", (1, 2 * t, WIDTH)))
    elif how == "pad":
        text.add(text.let(f"F.pad({value}, {choices.pick(['(0, 0, 1, 0)', '(0, 0, 0, 1)'])}"
                          f"{choices.pick(['', ', value=1.0'])})", (1, t + 1, WIDTH)))
    elif how == "interleave":
        text.add(text.let(f"{value}.repeat_interleave(2, dim=1)", (1, 2 * t, WIDTH)))
    elif how == "unfold":
        text.add(text.let(f"{value}.unfold(2, 4, 2).mean(-1)", (1, t, 3)))
    elif how == "expand":
        text.add(text.let(f"{value}.mean(1, keepdim=True).expand(-1, 3, -1)", (1, 3, WIDTH)))
    elif how == "every":
        text.add(text.let(f"{value}[:, ::2]", (1, -(-t // 2), WIDTH)))
    elif how == "tril":
        text.add(text.let(f"{value}.tril()", value.shape))
    else:
        text.add(text.let(f"{value}.transpose(1, 2).unsqueeze(-1)", (1, WIDTH, t, 1)))


def convolve(text: Text, choices: Choices) -> None:
    """Over tokens, as a diffusion U-Net's, or over an image."""
    value = text.any(choices)
    if len(value.shape) == 4:
        c = value.shape[1]
        layer, shape = choices.pick([
            (f"nn.Conv2d({c}, {WIDTH}, 1)", (1, WIDTH, *value.shape[2:])),
            (f"nn.Conv2d({c}, {c}, 3, padding=1, groups={c})", value.shape),
            (f"nn.Conv2d({c}, {WIDTH}, 3, padding=2, dilation=2)", (1, WIDTH, *value.shape[2:])),
            (f"nn.ConvTranspose2d({c}, {WIDTH}, 2, stride=2)", (1, WIDTH, 2 * value.shape[2], 2 * value.shape[3]))])
        text.add(text.let(f"{text.member('conv', layer)}({value})", shape))
        return
    value = text.tokens(value)
    t = value.shape[1]
    layer, length = choices.pick([
        (f"nn.Conv1d({WIDTH}, {WIDTH}, 3, padding=1)", t), (f"nn.Conv1d({WIDTH}, {WIDTH}, 3, stride=2, padding=1)",
                                                           (t + 1) // 2),
        (f"nn.ConvTranspose1d({WIDTH}, {WIDTH}, 4, 2, 1)", 2 * t), (f"nn.Conv1d({WIDTH}, {WIDTH}, 1)", t),
        (f"nn.Conv1d({WIDTH}, {WIDTH}, 3, padding=1, padding_mode='circular')" if t > 1 else
         f"nn.Conv1d({WIDTH}, {WIDTH}, 1)", t)])
    text.add(text.let(f"{text.member('conv', layer)}({value}.transpose(1, 2)).transpose(1, 2)", (1, length, WIDTH)))


def dead_branch(text: Text, choices: Choices) -> None:
    """What is computed and never read, and what a flag switches off."""
    value = text.tokens(text.any(choices))
    layer = text.linear(WIDTH, WIDTH)
    how = choices.pick(["unused", "training", "flag", "none", "zero"])
    if how == "unused":
        text.line(f"{text.fresh('unused')} = {layer}({value}).softmax(-1).argmax(-1)")
    elif how == "training":
        with text.block("if self.training:"):
            text.line(f"{value} = F.dropout({layer}({value}), 0.5)")
    elif how == "flag":
        text.setup.append("self.use_extra = False")
        text.add(text.let(f"{layer}({value}) if self.use_extra else {value}", value.shape))
    elif how == "none":
        drop = text.member("dropout", "nn.Dropout(0.1)")
        text.add(text.let(f"{drop}({layer}({value}))", value.shape))
    else:
        text.add(text.let(f"{value} + 0 * {layer}({value})", value.shape))


def halves(text: Text, choices: Choices) -> None:
    """A few lines in 16 bits."""
    value = text.tokens(text.any(choices))
    dtype = choices.pick(["bfloat16", "float16"])
    layer = text.member("linear_half", f"nn.Linear({WIDTH}, {WIDTH}).to(torch.{dtype})")
    text.add(text.let(f"{layer}({value}.to(torch.{dtype})).float()", value.shape))


def from_mask(text: Text, choices: Choices) -> None:
    """A mean over the tokens that a mask shows, positions counted by it, or its flags themselves."""
    if not text.masks:
        return dead_branch(text, choices)
    mask = choices.pick(text.masks)
    t = mask.shape[1]
    how = choices.pick(["positions", "flags", "count", "any", "fill"])
    if how == "positions":
        weights = text.member("embedding", f"nn.Embedding({t + 1}, {WIDTH})")
        text.add(text.let(f"{weights}((torch.cumsum({mask}.long(), 1) - 1).clamp(min=0))", (1, t, WIDTH)))
    elif how == "flags":
        text.add(text.let(f"{mask}.float()", (1, t)))
    elif how == "count":
        text.add(text.let(f"{mask}.sum(1, keepdim=True).float() / {t}", (1, 1)))
    elif how == "any":
        value = text.vector(text.any(choices), choices)
        text.add(text.let(f"torch.where({mask}.any(1, keepdim=True), {value}, torch.zeros_like({value}))", value.shape))
    else:
        value = text.vector(text.any(choices), choices)
        text.add(text.let(f"{value}[:, None].masked_fill(~{mask}[..., None], 0.0)", (1, t, WIDTH)))
    return None
