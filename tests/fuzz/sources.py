"""Random sources of a policy, and the encoder that first reads each.

Owns the dtypes, ranges, update classes, clocks and histories. What follows the encoders is in steps.py.
"""

from __future__ import annotations

from tests.fuzz.text import WIDTH, Choices, Text, Value


def source(text: Text, choices: Choices) -> None:
    """One more input, with an encoder that puts its values into the pool."""
    kind = choices.pick([_vector, _vector, _tokens, _image, _ids, _ticks, _index, _flags])
    kind(text, choices)


def noise(text: Text, choices: Choices, steps: int, dim: int) -> Value:
    """What a loop starts with: [1,steps,dim]."""
    name = text.fresh("noise")
    update = choices.pick(["step", "step", "observation", "tick"])
    text.sources[name] = (f'"{update}"', f"torch.randn(1, {steps}, {dim}, generator=g)", "")
    return Value(name, (1, steps, dim))


def _declare(choices: Choices) -> tuple[str, int]:
    """(arguments of Source, frames of its history)"""
    update = choices.pick(["observation", "observation", "task", "tick", "step", "observation", "static"])
    clock = choices.pick(["", "", ", clock=30", ", clock=7.5"]) if update in ("observation", "tick") else ""
    history = choices.pick([1, 1, 1, 2, 3]) if update in ("observation", "tick") else 1
    return f'"{update}"{clock}{f", history={history}" if history > 1 else ""}', history


def _vector(text: Text, choices: Choices) -> None:
    name, (declared, frames) = text.fresh("state"), _declare(choices)
    dtype = choices.pick(["float32", "float32", "float32", "float64", "float16", "bfloat16"])
    dim = choices.pick([WIDTH, 5, 1, 12])
    shape = (1, dim) if frames == 1 else (1, frames, dim)
    example = f"torch.randn({', '.join(map(str, shape))}, generator=g)"
    text.sources[name] = (declared, example + ("" if dtype == "float32" else f".to(torch.{dtype})"), "")
    value = Value(name, shape)
    if dtype != "float32":
        value = text.let(f"{name}.float()", shape)
    _of_history(text, choices, value, frames)


def _of_history(text: Text, choices: Choices, value: Value, frames: int) -> None:
    if frames == 1:
        text.add(value)
        return
    dim = value.shape[-1]
    how = choices.pick(["tokens", "flat", "newest", "moved", "mean", "each"])
    if how == "tokens":
        text.add(value)
    elif how == "flat":
        text.add(text.let(f"{value}.flatten(1)", (1, frames * dim)))
    elif how == "newest":
        text.add(text.let(f"{value}[:, -1]", (1, dim)))
    elif how == "moved":
        text.add(text.let(f"{value}[:, 1:] - {value}[:, :-1]", (1, frames - 1, dim)))
    elif how == "mean":
        text.add(text.let(f"{value}.mean(1)", (1, dim)))
    else:
        layer = text.linear(dim, WIDTH)
        encoded = text.let(f"{layer}({value}.flatten(0, 1)).tanh()", (frames, WIDTH))
        text.add(text.let(f"{encoded}.view(1, {frames}, {WIDTH})", (1, frames, WIDTH)))


def _tokens(text: Text, choices: Choices) -> None:
    name, (declared, frames) = text.fresh("points"), _declare(choices)
    count, dim = choices.pick([4, 1, 7]), choices.pick([WIDTH, 3])
    shape = (1, count, dim) if frames == 1 else (1, frames, count, dim)
    text.sources[name] = (declared, f"torch.randn({', '.join(map(str, shape))}, generator=g)", "")
    value = Value(name, shape)
    if frames > 1:
        value = text.let(choices.pick([f"{name}.flatten(1, 2)", f"{name}.reshape(1, -1, {dim})",
                                       f"torch.cat([{name}[:, i] for i in range({frames})], 1)"]),
                         (1, frames * count, dim))
    text.add(value)


def _ticks(text: Text, choices: Choices) -> None:
    """Numbers in units of a robot, normalised by recorded statistics."""
    name, (declared, frames) = text.fresh("joints"), _declare(choices)
    mean, spread = choices.pick([(2048.0, 600.0), (0.0, 1e-3), (-500.0, 20.0), (1e5, 10.0)])
    dim = choices.pick([6, WIDTH])
    shape = (1, dim) if frames == 1 else (1, frames, dim)
    text.sources[name] = (declared, f"{mean} + {spread} * torch.randn({', '.join(map(str, shape))}, generator=g)",
                          f"({mean}, {spread})")
    dtype = choices.pick(["", ", dtype=torch.float64"])
    centre = text.buffer(f"torch.full(({dim},), {mean}{dtype})")
    width = text.buffer(f"torch.full(({dim},), {spread}{dtype})")
    eps = choices.pick(["", " + 1e-8", " + 1e-6"])
    value = text.let(f"(({name} - {centre}) / ({width}{eps})){'.float()' if dtype else ''}", shape)
    _of_history(text, choices, value, frames)


def _image(text: Text, choices: Choices) -> None:
    name, (declared, frames) = text.fresh("camera"), _declare(choices)
    side, last = choices.pick([8, 16]), choices.pick([True, False])
    frame = (side, side, 3) if last else (3, side, side)
    shape = (1, *frame) if frames == 1 else (1, frames, *frame)
    text.sources[name] = (declared, f"torch.randint(0, 256, {shape}, dtype=torch.uint8, generator=g)", "")
    flat = name if frames == 1 else choices.pick([f"{name}.flatten(0, 1)", f"{name}[0]"])
    scaled = choices.pick([".float() / 255", ".float() / 127.5 - 1", ".to(torch.float32).div(255).sub(0.5)"])
    order = f".permute({choices.pick(['0, 3, 1, 2'])})" if last else ""
    value = text.let(f"{flat}{order}{scaled}", (frames, 3, side, side))
    value = _encode(text, choices, value)
    if frames > 1:
        f, c, h, w = value.shape
        how = choices.pick(["tokens", "channels", "mean"])
        value = (text.let(f"{value}.flatten(2).transpose(1, 2).reshape(1, {f * h * w}, {c})", (1, f * h * w, c))
                 if how == "tokens" else text.let(f"{value}.reshape(1, {f * c}, {h}, {w})", (1, f * c, h, w))
                 if how == "channels" else text.let(f"{value}.mean(0, keepdim=True)", (1, c, h, w)))
    text.add(value)


def _encode(text: Text, choices: Choices, value: Value) -> Value:
    """A few layers over frames [F,3,S,S]."""
    frames, _, side, _ = value.shape
    kind = choices.pick(["patch", "convolutions", "resized", "pooled"])
    if kind == "resized":
        how = choices.pick(['mode="bilinear"', 'mode="bilinear", align_corners=False', 'mode="nearest"',
                            'mode="bilinear", antialias=True', 'mode="area"'])
        value = text.let(f"F.interpolate({value}, size=(8, 8), {how})", (frames, 3, 8, 8))
        side = 8
    elif kind == "pooled":
        pool = choices.pick(["F.avg_pool2d({}, 2)", "F.max_pool2d({}, 2)", "F.adaptive_avg_pool2d({}, 4)"])
        out = 4 if "adaptive" in pool else side // 2
        value = text.let(pool.format(value), (frames, 3, out, out))
        side = out
    if kind == "convolutions":
        first = text.member("conv", f"nn.Conv2d(3, {WIDTH}, 3, stride=2, padding=1)")
        norm = choices.pick(["nn.Identity()", f"nn.BatchNorm2d({WIDTH})", f"nn.GroupNorm(2, {WIDTH})",
                             f"nn.InstanceNorm2d({WIDTH})", f"nn.BatchNorm2d({WIDTH}, affine=False)"])
        norm = text.member("norm", norm)
        act = choices.pick(["relu", "silu", "gelu"])
        second = text.member("conv", f"nn.Conv2d({WIDTH}, {WIDTH}, 3, stride=2, padding=1)")
        size = side // 4
        return text.let(f"{second}(F.{act}({norm}({first}({value}))))", (frames, WIDTH, size, size))
    patch = 4
    layer = text.member("patch", f"nn.Conv2d(3, {WIDTH}, {patch}, {patch})")
    return text.let(f"{layer}({value})", (frames, WIDTH, side // patch, side // patch))


def _ids(text: Text, choices: Choices) -> None:
    """Token ids with padding, and perhaps a mask of their own."""
    name, length, vocabulary = text.fresh("ids"), choices.pick([5, 3, 8]), choices.pick([12, 30])
    update = choices.pick(["task", "task", "observation"])
    dtype = choices.pick(["int64", "int64", "int32"])
    text.sources[name] = (f'"{update}"', f"(torch.arange({length})[None] * {vocabulary - 1} // {max(1, length - 1)})"
                                         f".to(torch.{dtype})", f"(0, {vocabulary})")
    padding = choices.pick(["", ", padding_idx=0"])
    table = text.member("embedding", f"nn.Embedding({vocabulary}, {WIDTH}{padding})")
    value = text.let(f"{table}({name})", (1, length, WIDTH))
    own = choices.pick(["ids", "input", "none"])
    if own == "ids":
        text.masks.append(text.let(f"{name} != 0", (1, length), "bool"))
    elif own == "input":
        mask = text.fresh("mask")
        text.sources[mask] = (f'"{update}"', f"torch.arange({length})[None] < {max(1, length - 2)}", "")
        text.masks.append(Value(mask, (1, length), "bool"))
    if choices.once_in(2):
        positions = text.member("position", f"nn.Parameter(torch.randn(1, {length}, {WIDTH}) * 0.1)")
        value = text.let(f"{value} + {positions}", value.shape)
    text.ids.append(Value(name, (1, length), dtype))
    text.add(value)
    if own != "none" and choices.once_in(3):
        mask = text.masks[-1]
        weight = text.let(f"{mask}.unsqueeze(-1).float()", (1, length, 1))
        text.add(text.let(f"({value} * {weight}).sum(1) / {weight}.sum(1).clamp(min={choices.pick(['1', '1e-9'])})",
                          (1, WIDTH)))


def _index(text: Text, choices: Choices) -> None:
    """A number that selects a row: the embodiment, the task."""
    name, rows = text.fresh("task"), choices.pick([4, 7])
    update = choices.pick(["task", "observation"])
    how = choices.pick(["embedding", "index", "select", "onehot", "slice", "window"])
    last = rows - 2 if how == "slice" else rows - 1
    text.sources[name] = (f'"{update}"', f"torch.tensor([{last}])", f"(0, {last + 1})")
    if how == "embedding":
        table = text.member("embedding", f"nn.Embedding({rows}, {WIDTH})")
        value = text.let(f"{table}({name})", (1, WIDTH))
    elif how == "index":
        value = text.let(f"{text.buffer(f'torch.randn({rows}, {WIDTH})')}[{name}]", (1, WIDTH))
    elif how == "select":
        value = text.let(f"{text.buffer(f'torch.randn({rows}, {WIDTH})')}.index_select(0, {name})", (1, WIDTH))
    elif how == "slice":
        table = text.buffer(f"torch.randn({rows}, {WIDTH})")
        taken = choices.pick([f"{table}[{name}[0]:{name}[0] + 2]", f"{table}.narrow(0, {name}[0], 2)"])
        value = text.let(f"{taken}[None]", (1, 2, WIDTH))
    elif how == "window":
        value = text.tokens(text.any(choices)) if text.pool else text.let(f"torch.ones(1, 2, {WIDTH})", (1, 2, WIDTH))
        steps = text.let(f"torch.linspace(-1, 1, {rows * WIDTH}).view(1, {rows}, {WIDTH})", (1, rows, WIDTH))
        text.line(f"{steps}[:, {name}[0]:{name}[0] + 1] = {value}[:, :1]")
        value = steps
    else:
        value = text.let(f"F.one_hot({name}, {rows}).float()", (1, rows))
    text.add(value)


def _flags(text: Text, choices: Choices) -> None:
    """Switches, as numbers and as choices between values."""
    name, (declared, frames) = text.fresh("flags"), _declare(choices)
    shape = (1, WIDTH) if frames == 1 else (1, frames, WIDTH)
    dtype = choices.pick(["bool", "uint8"])
    example = (f"torch.rand({', '.join(map(str, shape))}, generator=g) < 0.5" if dtype == "bool" else
               f"torch.randint(0, 4, {shape}, dtype=torch.uint8, generator=g)")
    text.sources[name] = (declared, example, "" if dtype == "bool" else "(0, 4)")
    value = text.let(choices.pick([f"{name}.float()", f"{name}.float() * 2 - 1", f"torch.where({name} > 0, 1.5, -0.5)"]
                                  if dtype == "uint8" else
                                  [f"{name}.float()", f"(~{name}).float() - 0.5", f"torch.where({name}, 1.5, -0.5)"]),
                     shape)
    _of_history(text, choices, value, frames)
