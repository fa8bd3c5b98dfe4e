"""Random control flow that constants decide: schedulers, lengths, switches kept in buffers, masks known from shapes."""

from __future__ import annotations

from tests.fuzz.loops import DIM, STEPS, Body
from tests.fuzz.sources import noise
from tests.fuzz.text import WIDTH, Choices, Text, Value

SCHEDULER = '''class Scheduler:
    """As those of public samplers: set_timesteps, then step with the time's own number."""

    def __init__(self, betas, kind):
        self.alphas, self.kind = torch.cumprod(1 - betas, 0), kind
        self.timesteps = None

    def set_timesteps(self, count):
        self.stride = len(self.alphas) // count
        self.timesteps = torch.arange(0, count).flip(0) * self.stride
        self.previous = None
        self.index = None

    def step(self, out, t, sample):
        before = t - self.stride
        a = self.alphas[t]
        b = self.alphas[before] if before >= 0 else torch.tensor(1.0)
        if self.kind == "sample":
            x0 = out
        else:
            x0 = (sample - (1 - a) ** 0.5 * out) / a ** 0.5
        if x0.shape[-1] > 2:
            x0 = x0.clamp(-2, 2)
        if self.kind == "multistep" and self.previous is not None:
            x0, self.previous = 1.5 * x0 - 0.5 * self.previous, x0
        elif self.kind == "multistep":
            self.previous = x0
        eps = (sample - a ** 0.5 * x0) / (1 - a) ** 0.5
        return b ** 0.5 * x0 + (1 - b) ** 0.5 * eps

'''


def scheduled(text: Text, choices: Choices) -> Value:
    """A loop over the timesteps of a scheduler object."""
    if SCHEDULER not in text.top:
        text.top.append(SCHEDULER)
    start, body, count = noise(text, choices, STEPS, DIM), Body(text, choices), choices.pick([3, 4, 5])
    kind = choices.pick(["noise", "sample", "multistep"])
    text.setup.append(f'self.scheduler = Scheduler(torch.linspace(1e-4, 0.05, 40), "{kind}")')
    x = text.let(str(start), start.shape)
    text.line(f"self.scheduler.set_timesteps({count})")
    how = choices.pick(["iterated", "counted", "items"])
    opening = {"iterated": "for t in self.scheduler.timesteps:", "counted": "for i, t in enumerate(self.scheduler."
               "timesteps):", "items": "for t in self.scheduler.timesteps.tolist():"}[how]
    with text.block(opening):
        out = body.write(str(x), "(t / 40)", {"counted": "i"}.get(how, "int(t) // 10"))
        text.line(f"{x} = self.scheduler.step({out}, t, {x})")
    return x


def known(text: Text, choices: Choices) -> None:
    """A branch, a length or a number that a buffer or a shape decides."""
    value = text.tokens(text.any(choices))
    t = value.shape[1]
    how = choices.pick(["buffer", "any", "ones", "lengths", "item", "sqrt", "finite", "indices", "numpy", "masked"])
    if how == "buffer":
        text.add(text.let(f"{value}[:, :int({text.buffer(f'torch.tensor({max(1, t - 1)})')})]",
                          (1, max(1, t - 1), WIDTH)))
    elif how == "any":
        mask = text.buffer(f"torch.arange({t}) >= {choices.pick([t, t - 1])}")
        name = text.let(f"{value} * 1.0", value.shape)
        with text.block(choices.pick([f"if bool({mask}.any()):", f"if {mask}.any():", f"if not {mask}.all().item():"])):
            text.line(f"{name} = {name}.masked_fill({mask}[None, :, None], 0.0)")
        text.add(name)
    elif how == "ones":
        mask = text.let(choices.pick([f"torch.ones_like({value}[..., 0])", f"torch.full_like({value}[..., 0], 1.0)",
                                      f"{value}.new_ones({value}.shape[:2])", f"{value}.new_zeros(1, {t}).fill_(1)"]),
                        (1, t))
        name = text.let(f"{value} + 0.5", value.shape)
        with text.block(f"if not {mask}.all():"):
            text.line(f"{name} = {name} * {mask}[..., None]")
        text.add(name)
    elif how == "lengths":
        lengths = text.let(f"torch.full((1,), {value}.shape[1])", (1,), "int64")
        mask = text.let(f"torch.arange({value}.shape[1])[None] < {lengths}[:, None]", (1, t), "bool")
        text.add(text.let(f"{value}[:, :int({mask}.sum())]", value.shape))
    elif how == "item":
        scale = text.buffer("torch.tensor(0.3)")
        text.add(text.let(f"{value} * {choices.pick([f'{scale}.item()', f'float({scale})', scale])}", value.shape))
    elif how == "sqrt":
        text.add(text.let(f"{value} / math.sqrt({text.buffer('torch.tensor(2.5)')}.item())", value.shape))
    elif how == "finite":
        table = text.buffer(f"torch.linspace(-1, 1, {WIDTH})")
        with text.block(f"if not torch.isfinite({table}).all():"):
            text.line("raise ValueError('a table that is not finite')")
        text.add(text.let(f"{value} + {table}", value.shape))
    elif how == "indices":
        keep = text.buffer(f"torch.arange({WIDTH}) % 3 != 1")
        kept = sum(i % 3 != 1 for i in range(WIDTH))
        text.add(text.let(f"{value}[..., {keep}]", (1, t, kept)))
    elif how == "numpy":
        steps = text.let("torch.linspace(1, 0, 4).numpy()", (4,))
        text.add(text.let(f"{value} * float({steps}[1] - {steps}[2])", value.shape))
    else:
        keep = text.buffer(f"torch.arange({WIDTH}) < 3")
        name = text.let(f"{value}.clone()", value.shape)
        text.line(choices.pick([f"{name}[..., {keep}] = 0.5",
                                f"{name}[:, :, {keep}] = torch.tanh({value})[:, :, {keep}]"]))
        text.add(name)
