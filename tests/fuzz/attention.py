"""Random attention, with every kind of mask, and recurrent cells."""

from __future__ import annotations

from tests.fuzz.text import WIDTH, Choices, Text, Value

HEADS = 2


def attend(text: Text, choices: Choices) -> None:
    """Self- or cross-attention, by one of the ways to write it."""
    queries = text.tokens(text.any(choices))
    keys = queries if choices.once_in(2) else text.tokens(text.any(choices))
    mask = _mask(text, choices, queries.shape[1], keys.shape[1])
    how = choices.pick([_fused, _by_hand, _module])
    out = how(text, choices, queries, keys, mask)
    text.add(text.let(f"{queries} + {out}", queries.shape) if choices.once_in(2) else out)


def _mask(text: Text, choices: Choices, n: int, m: int) -> tuple[str, str] | None:
    """(kind, name) of a mask [n,m] or [1,m]: "bool" (True: seen), "float" (added), "causal"."""
    own = [k for k in text.masks if k.shape[1] == m]
    kind = choices.pick(["none", "causal", "bool", "float", "padding", "empty row", "is_causal", "infinite", "joint"])
    if kind == "padding" and own:
        return "bool", f"{choices.pick(own)}[:, None, None, :]"
    if kind == "joint" and own:
        return "bool", str(text.let(f"{choices.pick(own)}[:, None, None, :] & torch.ones({n}, {m}, dtype=torch.bool)"
                                    f".tril({max(0, m - n)})", (1, 1, n, m), "bool"))
    if kind == "is_causal":
        return "causal", ""
    if kind == "causal":
        return "bool", str(text.let(f"torch.ones({n}, {m}, dtype=torch.bool).tril()", (n, m), "bool"))
    if kind == "bool":
        return "bool", text.buffer(f"(torch.arange({n * m}).view({n}, {m}) % 3) != 1")
    if kind == "float":
        return "float", text.buffer(f"torch.randn({n}, {m})")
    if kind == "empty row":
        return "bool", text.buffer(f"(torch.arange({n})[:, None] > 0).expand({n}, {m}).clone()")
    if kind == "infinite":
        low = choices.pick(["float('-inf')", "-1e9", "torch.finfo(torch.float32).min"])
        return "float", text.buffer(f"torch.triu(torch.full(({n}, {m}), {low}), 1)")
    return None


def _fused(text: Text, choices: Choices, queries: Value, keys: Value, mask: tuple[str, str] | None) -> Value:
    n, m, size = queries.shape[1], keys.shape[1], WIDTH // HEADS
    q, k, v = (text.let(f"{text.linear(WIDTH, WIDTH)}({x}).view(1, {c}, {HEADS}, {size}).transpose(1, 2)",
                        (1, HEADS, c, size)) for x, c in ((queries, n), (keys, m), (keys, m)))
    options = {None: "", "causal": ", is_causal=True"}.get(mask and mask[0], f", attn_mask={mask and mask[1]}")
    options += choices.pick(["", ", scale=0.3"])
    out = text.let(f"F.scaled_dot_product_attention({q}, {k}, {v}{options})", (1, HEADS, n, size))
    return text.let(f"{text.linear(WIDTH, WIDTH)}({out}.transpose(1, 2).reshape(1, {n}, {WIDTH}))", queries.shape)


def _by_hand(text: Text, choices: Choices, queries: Value, keys: Value, mask: tuple[str, str] | None) -> Value:
    n, m, size = queries.shape[1], keys.shape[1], WIDTH // HEADS
    q = text.let(f"{text.linear(WIDTH, WIDTH)}({queries}).view(1, {n}, {HEADS}, {size}).transpose(1, 2)",
                 (1, HEADS, n, size))
    both = text.let(f"{text.linear(WIDTH, 2 * WIDTH)}({keys}).view(1, {m}, 2, {HEADS}, {size}).permute(2, 0, 3, 1, 4)",
                    (2, 1, HEADS, m, size))
    scores = text.let(f"{q} @ {both}[0].transpose(-1, -2) / math.sqrt({size})", (1, HEADS, n, m))
    if mask is not None:
        kind, name = mask
        shown = name or f"torch.ones({n}, {m}, dtype=torch.bool).tril()"
        hidden = choices.pick(["-1e9", "torch.finfo(torch.float32).min", "-1e4"])
        scores = text.let(f"{scores} + {shown}" if kind == "float" else
                          choices.pick([f"{scores}.masked_fill(~({shown}), {hidden})",
                                        f"torch.where({shown}, {scores}, torch.tensor({hidden}))",
                                        f"{scores} + (1.0 - ({shown}).float()) * {hidden}"]), scores.shape)
    return text.let(f"({scores}.softmax(dim=-1) @ {both}[1]).transpose(1, 2).flatten(2)", queries.shape)


def _module(text: Text, choices: Choices, queries: Value, keys: Value, mask: tuple[str, str] | None) -> Value:
    layer = text.member("attention", f"nn.MultiheadAttention({WIDTH}, {HEADS}, batch_first=True)")
    options, n, m = "", queries.shape[1], keys.shape[1]
    if mask is not None:
        kind, name = mask
        if "[:, None, None, :]" in name:
            options = f", key_padding_mask=~{name.split('[')[0]}"
        elif kind == "causal":
            options = f", attn_mask=torch.ones({n}, {m}, dtype=torch.bool).triu(1)"
        elif not name.startswith("v") or kind != "bool":
            options = f", attn_mask={'~' if kind == 'bool' else ''}{name}"
        else:
            options = f", attn_mask=~{name}.view({n}, {m})"
    weights = choices.pick([", need_weights=False", ""])
    return text.let(f"{layer}({queries}, {keys}, {keys}{options}{weights})[0]", queries.shape)


def transformer(text: Text, choices: Choices) -> None:
    """PyTorch's own layers."""
    value = text.tokens(text.any(choices))
    options = choices.pick(["", ", norm_first=True", ", activation='gelu'"])
    layer = text.member("layer", f"nn.TransformerEncoderLayer({WIDTH}, {HEADS}, 16, 0.0, batch_first=True{options})")
    if choices.once_in(2):
        layer = text.member("encoder", f"nn.TransformerEncoder({layer}, 2, enable_nested_tensor=False)")
    own = [k for k in text.masks if k.shape[1] == value.shape[1]]
    mask = f", src_key_padding_mask=~{choices.pick(own)}" if own and choices.once_in(2) else ""
    text.add(text.let(f"{layer}({value}{mask})", value.shape))


def recur(text: Text, choices: Choices) -> None:
    """A recurrent cell over tokens."""
    value = text.tokens(text.any(choices))
    t = min(value.shape[1], 5)
    how = choices.pick(["gru cell", "lstm cell", "written gru", "written lstm", "gru", "lstm"])
    if how in ("gru", "lstm"):
        layer = text.member("rnn", f"nn.{how.upper()}({WIDTH}, {WIDTH}, batch_first=True)")
        text.add(text.let(f"{layer}({value}[:, :{t}])[0]", (1, t, WIDTH)))
        return
    h, c = text.let(f"{value}.new_zeros(1, {WIDTH})", (1, WIDTH)), None
    if "lstm" in how:
        c = text.let(f"torch.zeros(1, {WIDTH})", (1, WIDTH))
    kept = text.fresh("states")
    gates = (text.member("cell", f"nn.{how[:-5].upper()}Cell({WIDTH}, {WIDTH})") if "cell" in how else
             text.linear(2 * WIDTH, (3 if how == "written gru" else 4) * WIDTH))
    text.line(f"{kept} = []")
    with text.block(f"for k in range({t}):"):
        x = f"{value}[:, k]"
        if how == "gru cell":
            text.line(f"{h} = {gates}({x}, {h})")
        elif how == "lstm cell":
            text.line(f"{h}, {c} = {gates}({x}, ({h}, {c}))")
        elif how == "written lstm":
            text.line(f"i, f, o, u = {gates}(torch.cat([{x}, {h}], -1)).chunk(4, -1)")
            text.line(f"{c} = torch.sigmoid(f) * {c} + torch.sigmoid(i) * torch.tanh(u)")
            text.line(f"{h} = torch.sigmoid(o) * torch.tanh({c})")
        else:
            text.line(f"r, z, u = {gates}(torch.cat([{x}, {h}], -1)).chunk(3, -1)")
            text.line(f"{h} = (1 - torch.sigmoid(z)) * torch.tanh(u + torch.sigmoid(r) * {h}) + torch.sigmoid(z) * {h}")
        text.line(f"{kept}.append({h})")
    text.add(text.let(choices.pick([f"torch.stack({kept}, dim=1)", f"torch.cat({kept}, 0).unsqueeze(0)"]),
                      (1, t, WIDTH)))
    text.add(h)
