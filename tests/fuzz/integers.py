"""Random lines over ids, masks, bytes and indices that are computed: integers and booleans between the floats."""

from __future__ import annotations

from tests.fuzz.text import WIDTH, Choices, Text


def of_ids(text: Text, choices: Choices) -> None:
    """Arithmetic and comparisons of token ids, as numbers again in the end."""
    if not text.ids:
        return of_signs(text, choices)
    ids = choices.pick(text.ids)
    t = ids.shape[1]
    how = choices.pick(["({i} // 2).float()", "({i} % 3).float()", "({i} * 2 + 1).float() / 10", "({i} == {i}[:, :1])"
                        ".float()", "({i}.clamp(max=5) - 2).float()", "torch.where({i} > 3, {i}, -{i}).float()",
                        "({i}.cumsum(1) % 7).float()", "{i}.sort(dim=1)[0].float()", "({i} << 1).float()",
                        "({i} & 3).float()", "{i}.argsort(dim=1).float()", "{i}.float().pow(2) / 100",
                        "({i} ^ 1).float()",
                        "torch.bucketize({i}.float(), torch.tensor([2.0, 5.0, 9.0])).float()",
                        "({i} / 4)", "{i}.flip(1).double().float()", "({i}.max(1, keepdim=True)[0] - {i}).float()",
                        "(~({i} > 2) | ({i} == 5)).float()", "torch.isin({i}, torch.tensor([1, 2, 3])).float()",
                        "{i}.remainder(-4).float()", "({i} - 6).abs().float()",
                        "({i} - 6).div(4, rounding_mode='floor').float()",
                        "({i} - 6).div(4, rounding_mode='trunc').float()", "torch.fmod({i} - 6, 4).float()"])
    text.add(text.let(how.format(i=ids), (1, t)))
    return None


def of_signs(text: Text, choices: Choices) -> None:
    """Booleans of a value, combined and counted."""
    value = text.tokens(text.any(choices))
    a = text.let(f"{value} > 0.1", value.shape, "bool")
    b = text.let(choices.pick([f"{value}.abs() < 1", f"{value} <= {value}.mean()", f"torch.isfinite({value})"]),
                 value.shape, "bool")
    how = choices.pick(["({a} & {b}).float()", "({a} | ~{b}).float()", "({a} ^ {b}).float()", "({a} == {b}).float()",
                        "({a} != {b}).float()", "torch.logical_and({a}, {b}).float() * 2",
                        "({a}.long() + {b}.long()).float()",
                        "{a}.cumsum(1).float()", "{a}.any(1, keepdim=True).float() + {b}.float()",
                        "({a}.all(-1, keepdim=True) | {b}).float()", "torch.where({a} & {b}, 1.0, -1.0)",
                        "({a}.int() - {b}.int()).float()", "{a}.sum(-1, keepdim=True) * {b}.float()",
                        "{a}.to(torch.uint8).float()", "({a} * {b}).float()", "{a}.float().cumprod(1)"])
    text.add(text.let(how.format(a=a, b=b), value.shape))


def indexed(text: Text, choices: Choices) -> None:
    """Rows chosen by what was computed, and rows written at constant places."""
    value = text.tokens(text.any(choices))
    t = value.shape[1]
    other = text.let(f"torch.tanh({value})", value.shape)
    kind = choices.pick(["topk", "argsort", "onehot", "scatter", "index_add", "index_put", "take", "select_scatter",
                         "index_copy", "diagonal", "keep", "masked_scatter", "columns"])
    if kind == "topk":
        index = text.let(f"{value}.topk(3, dim=-1)[1]", (1, t, 3), "int64")
        text.add(text.let(f"{value}.gather(-1, {index})", (1, t, 3)))
    elif kind == "argsort":
        index = text.let(f"{value}.argsort(dim=-1, descending=True)", value.shape, "int64")
        text.add(text.let(f"torch.take_along_dim({other}, {index}, dim=-1)", value.shape))
    elif kind == "onehot":
        text.add(text.let(f"F.one_hot({value}.argmax(-1), {WIDTH}).float()", value.shape))
    elif kind == "scatter":
        index = f"torch.arange({t}).flip(0).view(1, {t}, 1).expand(1, {t}, {WIDTH})"
        how = choices.pick([f"torch.zeros_like({value}).scatter(1, {index}, {value})",
                            f"{value}.scatter_add(1, {index}, {other})", f"{value}.scatter(1, {index}, 0.5)"])
        text.add(text.let(how, value.shape))
    elif kind == "index_add":
        index = choices.pick(["[0]", "[0, 0]", f"[{t - 1}, 0]"])
        count = index.count(",") + 1
        part = f"{other}.mean(1, keepdim=True).expand(1, {count}, {WIDTH})"
        text.add(text.let(f"{value}.index_add(1, torch.tensor({index}), {part})", value.shape))
    elif kind == "index_put":
        text.add(text.let(f"{value}.index_put((torch.tensor([0]), torch.tensor([{t - 1}])), torch.ones(1, {WIDTH}))",
                          value.shape))
    elif kind == "take":
        text.add(text.let(f"{value}.flatten(1)[:, torch.tensor([0, 3, 1, {WIDTH * t - 1}])]", (1, 4)))
    elif kind == "select_scatter":
        text.add(text.let(f"torch.select_scatter({value}, {other}[:, 0], 1, {t - 1})", value.shape))
    elif kind == "index_copy":
        text.add(text.let(f"{value}.index_copy(1, torch.tensor([{t - 1}]), {other}[:, :1])", value.shape))
    elif kind == "diagonal":
        square = text.let(f"torch.bmm({value}.transpose(1, 2), {other})", (1, WIDTH, WIDTH))
        text.add(text.let(choices.pick([f"torch.diagonal({square}, dim1=1, dim2=2)",
                                        f"torch.einsum('bii->bi', {square})"]), (1, WIDTH)))
    elif kind == "keep":
        keep = text.buffer(f"torch.arange({WIDTH}) % 3 != 1")
        text.add(text.let(f"torch.where({keep}, {value}, {other})", value.shape))
    elif kind == "masked_scatter":
        text.add(text.let(f"{value}.masked_fill(torch.arange({WIDTH}) < 3, 0.0) + "
                          f"{other} * (torch.arange({WIDTH}) < 3)", value.shape))
    else:
        text.add(text.let(f"{value}[..., [2, 0, 1]]", (1, t, 3)))


def of_bytes(text: Text, choices: Choices) -> None:
    """Arithmetic of bytes before they become numbers."""
    name = text.fresh("depth")
    update = choices.pick(["observation", "tick", "task"])
    text.sources[name] = (f'"{update}"', "torch.randint(0, 256, (1, 4, 8), dtype=torch.uint8, generator=g)", "")
    how = choices.pick(["{x}.float().div(255)", "{x}[:, ::2].float() / 255", "({x} // 16).float()", "({x} % 7).float()",
                        "{x}.flip(-1).float() / 128", "({x} > 127).float()", "({x}.int() - 128).float() / 64",
                        "torch.cat([{x}, {x}], 1).float() / 255", "({x} == {x}.amax(-1, keepdim=True)).float()",
                        "{x}.transpose(1, 2).reshape(1, 4, 8).float() / 255", "{x}.half().float() / 255",
                        "torch.where({x} > 9, {x}, 9).float() / 255", "{x}.clamp(10, 200).float() / 255",
                        "(255 - {x}).float() / 255", "({x} & 15).float()", "{x}.to(torch.float64).mul(0.01).float()",
                        "F.pad({x}, (0, 0, 1, 1)).float() / 255", "{x}.unsqueeze(1).repeat(1, 2, 1, 1).flatten(1, 2)"
                        ".float() / 255", "({x} >> 2).float() / 64", "{x}.max(1, keepdim=True)[0].float() / 255"])
    rows = next((n for word, n in (("::2", 2), ("cat", 8), ("repeat", 8), ("pad", 6), ("max(1", 1)) if word in how), 4)
    text.add(text.let(how.format(x=name), (1, rows, 8)))


def mask_of_mask(text: Text, choices: Choices) -> None:
    """A mask that is made of others, for attention that follows."""
    if not text.masks:
        return of_signs(text, choices)
    mask = choices.pick(text.masks)
    t = mask.shape[1]
    how = choices.pick(["{m} & {m}.flip(1)", "~{m}", "{m} | (torch.arange({t}) == 0)", "torch.cumsum({m}, 1) <= 2",
                        "{m}.clone()", "{m} & (torch.arange({t})[None] < {t} - 1)", "{m}.long() == 1",
                        "{m}.logical_not().logical_not()", "F.pad({m}, (1, 0), value=True)",
                        "torch.cat([torch.ones(1, 2, dtype=torch.bool), {m}], 1)"])
    length = t + (1 if "pad" in how else 2 if "torch.cat" in how else 0)
    text.masks.append(text.let(how.format(m=mask, t=t), (1, length), "bool"))
    value = text.vector(text.any(choices), choices)
    tokens = text.let(f"{value}.unsqueeze(1) * torch.linspace(0.5, 1.5, {length})[None, :, None]", (1, length, WIDTH))
    text.add(tokens)
    text.add(text.let(f"{tokens} * {text.masks[-1]}[..., None]", tokens.shape))
    return None
