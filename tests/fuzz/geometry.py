"""Random lines as robots need them: rotations, distances, frames, filters, resampled images."""

from __future__ import annotations

from tests.fuzz.text import WIDTH, Choices, Text


def rotate(text: Text, choices: Choices) -> None:
    vector = text.vector(text.any(choices), choices)
    kind = choices.pick(["six numbers", "quaternion", "euler", "cross", "axis angle"])
    if kind == "six numbers":
        a, b = text.let(f"F.normalize({vector}[:, :3], dim=-1)", (1, 3)), text.let(f"{vector}[:, 3:6]", (1, 3))
        b = text.let(f"F.normalize({b} - ({a} * {b}).sum(-1, keepdim=True) * {a}, dim=-1, eps=1e-6)", (1, 3))
        how = choices.pick([f"torch.stack([{a}, {b}, torch.cross({a}, {b}, dim=-1)], dim=-2)",
                            f"torch.stack(({a}, {b}, torch.linalg.cross({a}, {b})), -1)"])
        text.add(text.let(how, (1, 3, 3)))
    elif kind == "quaternion":
        q = text.let(f"{vector}[:, :4] / {vector}[:, :4].norm(dim=-1, keepdim=True).clamp(min=1e-8)", (1, 4))
        w, x, y, z = (text.fresh("q") for _ in range(4))
        text.line(f"{w}, {x}, {y}, {z} = {q}.unbind(-1)")
        text.add(text.let(f"torch.stack([1 - 2 * ({y} * {y} + {z} * {z}), 2 * ({x} * {y} - {w} * {z}), "
                          f"2 * ({x} * {z} + {w} * {y})], -1)", (1, 3)))
    elif kind == "euler":
        text.add(text.let(f"torch.cat([{vector}.cos(), {vector}.sin()], -1)", (1, 2 * WIDTH)))
    elif kind == "cross":
        text.add(text.let(f"torch.linalg.cross({vector}[:, :3], {vector}[:, 3:6])", (1, 3)))
    else:
        angle = text.let(f"{vector}[:, :3].norm(dim=-1, keepdim=True)", (1, 1))
        text.add(text.let(f"{vector}[:, :3] / ({angle} + 1e-6) * torch.sin({angle} / 2)", (1, 3)))


def measure(text: Text, choices: Choices) -> None:
    a, b = text.tokens(text.any(choices)), text.tokens(text.any(choices))
    n, m = a.shape[1], b.shape[1]
    how, shape = choices.pick([
        (f"torch.cdist({a}, {b} + 0.1)", (1, n, m)),
        (f"F.cosine_similarity({a}, {b}.mean(1, keepdim=True), dim=-1)", (1, n)),
        (f"({a}[:, :, None] - {b}[:, None]).pow(2).sum(-1)", (1, n, m)),
        (f"torch.tensordot({a}, {b}, dims=([2], [2])).reshape(1, {n}, {m})", (1, n, m)),
        (f"F.pairwise_distance({a}.mean(1), {b}.mean(1))[:, None]", (1, 1)),
        (f"{a}.diff(dim=-1)", (1, n, WIDTH - 1)), (f"torch.diff({a}, dim=-1, prepend={a}[..., :1])", (1, n, WIDTH)),
        (f"{a}.median(dim=-1)[0]", (1, n)), (f"{a}.cummax(dim=-1)[0]", (1, n, WIDTH)),
        (f"torch.trapezoid({a}, dim=-1)", (1, n)), (f"{a}.norm(p=1, dim=-1)", (1, n)),
        (f"torch.logcumsumexp({a}, -1)", (1, n, WIDTH)), (f"{a}.aminmax(dim=-1)[1]", (1, n)),
        (f"torch.outer({a}[0, 0], {b}[0, 0])[None]", (1, WIDTH, WIDTH)), (f"torch.var_mean({a}, -1)[0]", (1, n)),
        (f"torch.kron({a}[0, :1], {b}[0, :1, :2])[None]", (1, 1, 2 * WIDTH)),
        (f"torch.std_mean({a}, dim=-1, unbiased=False)[1]", (1, n))])
    text.add(text.let(how, shape))


def solve(text: Text, choices: Choices) -> None:
    value = text.tokens(text.any(choices))
    square = text.let(f"torch.eye(4) * 3 + 0.3 * torch.tanh({value}[:, :1, :4] * {value}[:, :1, 4:8].transpose(1, 2))",
                      (1, 4, 4))
    how, shape = choices.pick([(f"torch.linalg.inv({square})", (1, 4, 4)), (f"{square}.det()[:, None]", (1, 1)),
                               (f"torch.linalg.solve({square}, {value}[:, 0, :4, None])", (1, 4, 1)),
                               (f"{square} @ {square}", (1, 4, 4)),
                               (f"torch.tril({square}, -1) + {square}.triu(1)", (1, 4, 4))])
    text.add(text.let(how, shape))


def image(text: Text, choices: Choices) -> None:
    """Of an image of the pool; of tokens where there is none."""
    images = [v for v in text.pool if len(v.shape) == 4 and min(v.shape[2:]) >= 2]
    if not images:
        return filtered(text, choices)
    value = choices.pick(images[::-1])
    _, c, h, w = value.shape
    options = [(f"F.interpolate({value}, scale_factor=2, mode='nearest')", (1, c, 2 * h, 2 * w)),
               (f"F.interpolate({value}, size=(3, 5), mode='bilinear', align_corners=True)", (1, c, 3, 5)),
               (f"F.interpolate({value}, size=(4, 4), mode='bicubic')", (1, c, 4, 4)),
               (f"F.pad({value}, (1, 1, 1, 1), mode='replicate')", (1, c, h + 2, w + 2)),
               (f"F.pad({value}, (1, 0, 0, 1), mode='reflect')", (1, c, h + 1, w + 1)),
               (f"F.pixel_shuffle({value}.repeat(1, 4, 1, 1), 2)", (1, c, 2 * h, 2 * w)),
               (f"{value}.flip(-1)", value.shape), (f"{value}[:, :, 1:, :-1]", (1, c, h - 1, w - 1)),
               (f"F.adaptive_avg_pool2d({value}, (1, 3))", (1, c, 1, 3)),
               (f"F.adaptive_max_pool2d({value}, 1)", (1, c, 1, 1)),
               (f"F.unfold({value}, 2).transpose(1, 2)", (1, (h - 1) * (w - 1), 4 * c)),
               (f"F.softmax({value}.flatten(2), -1).view(1, {c}, {h}, {w})", value.shape),
               (f"{value} - {value}.mean((2, 3), keepdim=True)", value.shape),
               (f"F.avg_pool2d({value}, 3, 1, 1, count_include_pad=False)", value.shape),
               (f"F.max_pool2d({value}, 2, 2, ceil_mode=True)", (1, c, -(-h // 2), -(-w // 2))),
               (f"F.grid_sample({value}, F.affine_grid(torch.tensor([[[0.8, 0.1, 0.0], [0.0, 0.9, 0.1]]]), "
                f"(1, {c}, 4, 4), align_corners=False), align_corners=False)", (1, c, 4, 4)),
               (f"{value}.permute(0, 2, 3, 1).reshape(1, {h * w}, {c})", (1, h * w, c)),
               (f"torch.channel_shuffle({value}.repeat(1, 2, 1, 1), 2)", (1, 2 * c, h, w)),
               (f"{value}.rot90(1, (2, 3))", (1, c, w, h))]
    # keypoints of Diffusion Policy: the expected position under a softmax over pixels
    options.append((f"(F.softmax({value}.flatten(2), -1) @ torch.stack(torch.meshgrid(torch.linspace(-1, 1, {h}), "
                    f"torch.linspace(-1, 1, {w}), indexing='ij'), -1).view(1, {h * w}, 2))", (1, c, 2)))
    how, shape = choices.pick(options)
    text.add(text.let(how, shape))
    return None


def filtered(text: Text, choices: Choices) -> None:
    """Along tokens."""
    value = text.tokens(text.any(choices))
    t = value.shape[1]
    how, shape = choices.pick([
        (f"F.avg_pool1d({value}, 2)", (1, t, WIDTH // 2)), (f"F.max_pool1d({value}, 3, 1, 1)", value.shape),
        (f"F.interpolate({value}.transpose(1, 2), size=5, mode='linear').transpose(1, 2)", (1, 5, WIDTH)),
        (f"F.adaptive_avg_pool1d({value}, 3)", (1, t, 3)), (f"F.glu({value}, -1)", (1, t, WIDTH // 2)),
        (f"F.prelu({value}, torch.tensor(0.2))", value.shape), (f"F.adaptive_max_pool1d({value}, 3)", (1, t, 3)),
        (f"torch.fft.rfft({value}, dim=-1).abs()", (1, t, WIDTH // 2 + 1)),
        (f"F.conv1d({value}.reshape({t}, 1, {WIDTH}), torch.ones(1, 1, 3) / 3, padding=1).view(1, {t}, {WIDTH})",
         value.shape), (f"F.hardtanh({value}).roll((1, 2), (1, 2))", value.shape),
        (f"F.softmin({value}, -1)", value.shape),
        (f"F.threshold({value}, 0.1, -0.5)", value.shape), (f"F.celu({value}) + F.selu({value})", value.shape),
        (f"F.tanhshrink({value}) + F.softsign({value})", value.shape), (f"F.relu6({value} * 4)", value.shape),
        (f"F.hardsigmoid({value}) - F.logsigmoid({value})", value.shape), (f"F.softshrink({value}, 0.2)", value.shape),
        (f"{value}.view(1, {t}, 2, {WIDTH // 2}).flip(2).reshape(1, {t}, {WIDTH})", value.shape),
        (f"torch.stack([-{value}[..., 1::2], {value}[..., ::2]], -1).flatten(-2)", value.shape),
        (f"torch.cat([-{value}[..., {WIDTH // 2}:], {value}[..., :{WIDTH // 2}]], -1)", value.shape)])
    text.add(text.let(how, shape))
