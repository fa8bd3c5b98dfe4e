"""Random loops: samplers of flow matching and diffusion, autoregression, and loops whose iterations differ."""

from __future__ import annotations

from tests.fuzz.sources import noise
from tests.fuzz.text import WIDTH, Choices, Text, Value

STEPS, DIM = 3, 4  # of the action chunk

SINUSOIDAL = """def sinusoidal(t, dim):
    half = dim // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half) / half)
    angles = t[:, None].float() * frequencies[None]
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)

"""


def _condition(text: Text, choices: Choices) -> tuple[Value, Value]:
    """(vector, tokens) of the observation that the bodies read"""
    return text.vector(text.any(choices), choices), text.tokens(text.any(choices))


class Body:
    """What predicts a velocity, noise or sample from x [1,STEPS,DIM], the time's name or number, and the observation.
    Its layers are made once, before the loop."""

    def __init__(self, text: Text, choices: Choices):
        self.text = text
        self.kind = choices.pick(["mlp", "attention", "film", "network", "cross"])
        self.time = choices.pick(["scale", "sinusoidal", "table", "none", "modulation"])
        self.vector, self.tokens = _condition(text, choices)
        self.first, self.last = text.linear(DIM, WIDTH), text.linear(WIDTH, DIM)
        self.middle = text.linear(WIDTH, 2 * WIDTH if self.kind == "film" else WIDTH)
        if self.time == "sinusoidal":
            if SINUSOIDAL not in text.top:
                text.top.append(SINUSOIDAL)
            self.embed = text.member("time", f"nn.Sequential(nn.Linear({WIDTH}, {WIDTH}), nn.SiLU(), "
                                             f"nn.Linear({WIDTH}, {WIDTH}))")
        elif self.time == "table":
            self.embed = text.member("embedding", f"nn.Embedding(16, {WIDTH})")
        elif self.time == "modulation":
            if SINUSOIDAL not in text.top:
                text.top.append(SINUSOIDAL)
            self.parts = choices.pick([3, 2, 6])
            self.embed = text.member("modulation", f"nn.Sequential(nn.SiLU(), "
                                                   f"nn.Linear({WIDTH}, {self.parts * WIDTH}))")
        elif self.time == "scale":
            self.embed = text.linear(1, WIDTH, False)
        if self.kind == "network":
            self.network = text.member("network", f"nn.Sequential(nn.Linear({WIDTH}, 16), nn.GELU(), "
                                                  f"nn.Linear(16, {WIDTH}))")
        if self.kind == "attention":
            self.queries = text.linear(WIDTH, 3 * WIDTH)
        if self.kind == "cross":
            self.keys = text.linear(WIDTH, 2 * WIDTH)

    def write(self, x: str, time: str, index: str) -> str:
        """Lines of the body; the name of what they predict. time: a number in [0, 1] or a tensor of one. index: a whole
        number."""
        t = self.text
        h = t.fresh("h")
        t.line(f"{h} = {self.first}({x})")
        if self.time == "scale":
            t.line(f"{h} = {h} + {self.embed}(torch.full((1, 1, 1), 1.0) * {time})")
        elif self.time == "sinusoidal":
            t.line(f"{h} = {h} + {self.embed}(sinusoidal(torch.ones(1) * {time} * 100, {WIDTH}))[:, None]")
        elif self.time == "table":
            t.line(f"{h} = {h} + {self.embed}(torch.tensor([{index}]))[:, None]")
        elif self.time == "modulation":
            names = [t.fresh("m") for _ in range(self.parts)]
            t.line(f"c = sinusoidal(torch.full((1,), 1.0) * {time}, {WIDTH}) + {self.vector}")
            t.line(f"{', '.join(names)} = {self.embed}(c)[:, None].chunk({self.parts}, dim=-1)")
            t.line(f"{h} = F.layer_norm({h}, ({WIDTH},)) * (1 + {names[0]}) + {names[1]}")
            for name in names[2:]:
                t.line(f"{h} = {h} + {name} * torch.tanh({h})")
        getattr(self, f"_{self.kind}")(h)
        out = t.fresh("out")
        t.line(f"{out} = {self.last}({h})")
        return out

    def _mlp(self, h: str) -> None:
        self.text.line(f"{h} = F.silu({self.middle}({h}) + {self.vector}[:, None])")

    def _network(self, h: str) -> None:
        self.text.line(f"{h} = {h} + {self.network}(F.layer_norm({h}, ({WIDTH},)) + {self.vector}.unsqueeze(1))")

    def _film(self, h: str) -> None:
        self.text.line(f"scale, shift = {self.middle}({self.vector}).unsqueeze(1).chunk(2, dim=2)")
        self.text.line(f"{h} = torch.tanh({h} * (1 + scale) + shift)")

    def _attention(self, h: str) -> None:
        n = self.tokens.shape[1]
        self.text.line(f"joined = torch.cat([{self.tokens}, {h}], 1)")
        self.text.line(f"q, k, v = {self.queries}(joined).view(1, {n + STEPS}, 3, 2, {WIDTH // 2})"
                       f".permute(2, 0, 3, 1, 4)")
        self.text.line(f"{h} = {h} + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, {n}:]")

    def _cross(self, h: str) -> None:
        self.text.line(f"k, v = {self.keys}({self.tokens}).chunk(2, -1)")
        self.text.line(f"{h} = {h} + {self.middle}(({h} @ k.transpose(1, 2) / {WIDTH ** 0.5:.4f}).softmax(-1) @ v)")


def _flow(text: Text, choices: Choices) -> Value:
    """Flow matching: noise to action, time upwards or downwards, the step a number or a tensor."""
    start, body, count = noise(text, choices, STEPS, DIM), Body(text, choices), choices.pick([3, 4, 5])
    x = text.let(str(start), start.shape)
    how = choices.pick(["up", "down", "while", "tensor", "heun", "tables"])
    if how == "while":
        text.line(f"dt, time = -1.0 / {count}, torch.tensor(1.0)" if choices.once_in(2) else
                  f"dt, time = -1.0 / {count}, 1.0")
        text.line("n = 0")
        with text.block(f"while n < {count}:"):
            text.line(f"{x} = {x} + dt * {body.write(str(x), 'time', 'n')}")
            text.line("time = time + dt")
            text.line("n += 1")
        return x
    if how == "tables":
        text.line(f"times = torch.linspace(0, 1, {count + 1})")
    with text.block(f"for i in range({count}):"):
        time = {"up": f"(i / {count})", "down": f"(1 - i / {count})", "tensor": f"torch.tensor(i / {count})",
                "heun": f"(i / {count})", "tables": "times[i]"}[how]
        step = {"down": f"-1 / {count}", "tables": "(times[i + 1] - times[i])"}.get(how, f"{1 / count}")
        velocity = body.write(str(x), time, "i")
        if how == "heun":
            guess = text.fresh("guess")
            text.line(f"{guess} = {x} + {step} * {velocity}")
            text.line(f"{x} = {x} + {step} / 2 * ({velocity} + {body.write(guess, f'((i + 1) / {count})', 'i + 1')})")
        else:
            text.line(choices.pick([f"{x} = {x} + {step} * {velocity}",
                                    f"{x} = torch.add({x}, {velocity} * ({step}))"]))
    return x


def _diffusion(text: Text, choices: Choices) -> Value:
    """DDIM with tables of constants."""
    start, body, count = noise(text, choices, STEPS, DIM), Body(text, choices), choices.pick([3, 4])
    alphas = text.buffer(choices.pick([f"torch.linspace(0.98, 0.05, {count + 1})",
                                       f"torch.cos(torch.linspace(0.05, 1.5, {count + 1})) ** 2",
                                       f"torch.cumprod(1 - torch.linspace(0.01, 0.6, {count + 1}), 0)"]))
    x = text.let(f"{start} * {choices.pick(['1.0', '0.5'])}", start.shape)
    clip = choices.pick(["", ".clamp(-1, 1)", ".clip(-3.0, 3.0)"])
    times = choices.pick([f"reversed(range({count}))", f"range({count - 1}, -1, -1)", f"{list(range(count))[::-1]}"])
    predicts = choices.pick(["noise", "sample", "velocity"])
    with text.block(f"for i in {times}:"):
        out = body.write(str(x), f"(i / {count})", "i")
        text.line(f"a, b = {alphas}[i + 1], {alphas}[i]")
        x0, eps = {"noise": (f"({x} - (1 - a).sqrt() * {out}) / a.sqrt()", out),
                   "sample": (out, f"({x} - a.sqrt() * x0) / (1 - a).sqrt()"),
                   "velocity": (f"a.sqrt() * {x} - (1 - a).sqrt() * {out}",
                                f"a.sqrt() * {out} + (1 - a).sqrt() * {x}")}[predicts]
        text.line(f"x0 = ({x0}){clip}")
        text.line(f"{x} = b.sqrt() * x0 + (1 - b).sqrt() * ({eps})")
    return x


def _autoregressive(text: Text, choices: Choices) -> Value:
    """One action after another, with what was computed before kept in a list."""
    vector, tokens = _condition(text, choices)
    keys, queries, last = text.linear(WIDTH, 2 * WIDTH), text.linear(WIDTH, WIDTH), text.linear(WIDTH, DIM)
    back = text.linear(DIM, WIDTH)
    how = choices.pick(["cache", "again", "argmax"])
    y = text.let(f"{vector}.unsqueeze(1)", (1, 1, WIDTH))
    text.line(f"past_k, past_v = {keys}({tokens}).chunk(2, -1)")
    text.line("actions = []")
    table = text.buffer(f"torch.randn(6, {DIM})") if how == "argmax" else ""
    logits = text.linear(WIDTH, 6) if how == "argmax" else ""
    with text.block(f"for k in range({STEPS}):"):
        if how == "again":
            text.line(f"joined = torch.cat([{tokens}] + [{back}(a) for a in actions] + [{y}], 1)")
            text.line(f"past_k, past_v = {keys}(joined).chunk(2, -1)")
        else:
            text.line(f"new_k, new_v = {keys}({y}).chunk(2, -1)")
            text.line("past_k, past_v = torch.cat([past_k, new_k], 1), torch.cat([past_v, new_v], 1)")
        text.line(f"h = {y} + F.scaled_dot_product_attention({queries}({y}), past_k, past_v)")
        text.line(f"action = {table}[{logits}(h).argmax(-1)]" if how == "argmax" else f"action = torch.tanh({last}(h))")
        text.line("actions.append(action)")
        text.line(f"{y} = {back}(action)")
    return text.let("torch.cat(actions, dim=1)", (1, STEPS, DIM))


def _irregular(text: Text, choices: Choices) -> Value:
    """Iterations that are not alike: they must not become one body."""
    start, body, count = noise(text, choices, STEPS, DIM), Body(text, choices), choices.pick([3, 4])
    x = text.let(str(start), start.shape)
    other = text.linear(DIM, DIM)
    how = choices.pick(["first", "alternate", "momentum", "last", "own layers", "early", "growing", "kept",
                        "coefficient"])
    if how == "momentum":
        text.line(f"momentum = torch.zeros_like({x})")
    if how in ("growing", "kept"):
        text.line(f"kept = [{x}]")
    layers = (text.member("layers", f"nn.ModuleList([nn.Linear({DIM}, {DIM}) for _ in range({count})])")
              if how == "own layers" else "")
    with text.block(f"for i in range({count}):"):
        velocity = body.write(str(x), f"(i / {count})", "i")
        if how in ("first", "last", "alternate"):
            when = {"first": "i == 0", "last": f"i == {count - 1}", "alternate": "i % 2 == 1"}[how]
            text.line(f"{x} = {x} + 0.3 * {velocity}")
            with text.block(f"if {when}:"):
                text.line(f"{x} = {x} - 0.1 * {other}({x})")
        elif how == "momentum":
            text.line(f"momentum = 0.9 * momentum + {velocity}")
            text.line(f"{x} = {x} + 0.2 * momentum")
        elif how == "own layers":
            text.line(f"{x} = {x} + 0.3 * {layers}[i]({velocity})")
        elif how == "early":
            text.line(f"{x} = {x} + 0.3 * {velocity}")
            with text.block(f"if i == {count - 2}:"):
                text.line("break")
        elif how == "growing":
            text.line(f"kept.append({velocity})")
            text.line(f"{x} = torch.stack(kept, 0).mean(0)")
        elif how == "kept":
            text.line(f"{x} = {x} + 0.5 * {velocity} - 0.1 * kept[{'-1' if choices.once_in(2) else '0'}]")
            text.line(f"kept.append({x})")
        else:
            text.line(f"{x} = {x} + {{0: 0.5, 1: 0.25}}.get(i, 0.125) * {velocity}")
    return x


def _guided(text: Text, choices: Choices) -> Value:
    """Two predictions per iteration, with the condition and without it."""
    start, with_it, count = noise(text, choices, STEPS, DIM), Body(text, choices), choices.pick([3, 4])
    without = Body(text, Choices([]))
    x = text.let(str(start), start.shape)
    with text.block(f"for i in range({count}):"):
        a = with_it.write(str(x), f"(i / {count})", "i")
        b = without.write(str(x), f"(i / {count})", "i")
        text.line(f"{x} = {x} + {1 / count} * ({b} + 1.5 * ({a} - {b}))")
    return x


LOOPS = (_flow, _flow, _diffusion, _autoregressive, _irregular, _guided)
