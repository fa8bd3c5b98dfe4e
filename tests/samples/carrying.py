"""A policy that carries values of every kind from step to step, and the same written down without the compiler: as a
loop over what was written, in which every value has its own variable."""

from __future__ import annotations

import torch
from torch import nn

import vlacompile as vc

ROWS, WIDTH, CHUNK = 4, 3, 2


class Carrying(nn.Module):
    """Carried: an LSTM's cell; the newest ROWS inputs in a ring, and how many there were; the action; the last input,
    which no carried value changes; a number that counts the steps of a task; and a value whose first content is
    computed from the instruction."""

    def __init__(self):
        super().__init__()
        self.cell, self.words = nn.LSTMCell(WIDTH, WIDTH), nn.Embedding(5, WIDTH)
        self.key, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CHUNK * WIDTH)
        self.register_buffer("rows", torch.arange(ROWS))

    def begin(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.words(tokens).mean(1).tanh()

    def forward(self, tokens, x, hidden, cell, ring, count, previous, last, since, mood):
        h, c = self.cell(x + last, (hidden, cell))
        ring = torch.where((self.rows == count % ROWS)[None, :, None], self.key(x)[:, None], ring)
        there = self.rows < (count + 1)
        weights = (ring @ h[:, :, None]).masked_fill(~there[None, :, None], -1e9).softmax(1)
        seen = (weights * ring).sum(1)
        mood = 0.5 * mood + 0.5 * seen
        action = self.head(seen + h + mood).view(1, CHUNK, WIDTH) + 0.1 * previous + 0.01 * since
        return {"action": action, "hidden.next": h, "cell.next": c, "ring.next": ring, "count.next": count + 1,
                "last.next": x, "since.next": since + 1, "mood.next": mood}


def module() -> Carrying:
    torch.manual_seed(0)
    return Carrying().eval()


def carrying(name: str = "carrying") -> vc.Policy:
    net = module()
    carried = {
        "hidden": vc.Carried("hidden.next", initial=torch.full((1, WIDTH), 0.25)),
        "cell": vc.Carried("cell.next", initial=torch.zeros(1, WIDTH)),
        "ring": vc.Carried("ring.next", initial=torch.zeros(1, ROWS, WIDTH)),
        "count": vc.Carried("count.next", initial=torch.zeros(1, dtype=torch.int64)),
        "previous": vc.Carried("action", initial=torch.zeros(1, CHUNK, WIDTH)),
        "last": vc.Carried("last.next", initial=torch.zeros(1, WIDTH)),
        "since": vc.Carried("since.next", initial=torch.full((1,), 2.0), until="task"),
        "mood": vc.Carried("mood.next", initial=net.begin, until="task"),
    }
    return vc.Policy(name, net, {"tokens": vc.Source("task"), "x": vc.Source("observation", clock=20.0)},
                     {"tokens": torch.tensor([[1, 2]]), "x": torch.ones(1, WIDTH)}, carried=carried)


class Reference:
    """The same for one robot. reset, task: whether an episode and a task end what they should; False is wrong."""

    def __init__(self, reset: bool = True, task: bool = True):
        self.net, self.reset_, self.task_ = module(), reset, task
        self.begin()

    def begin(self) -> None:
        self.hidden, self.cell = torch.full((1, WIDTH), 0.25), torch.zeros(1, WIDTH)
        self.ring, self.count = torch.zeros(1, ROWS, WIDTH), torch.zeros(1, dtype=torch.int64)
        self.previous, self.last = torch.zeros(1, CHUNK, WIDTH), torch.zeros(1, WIDTH)
        self.told: torch.Tensor | None = None

    def reset(self) -> None:
        if self.reset_:
            self.begin()

    def step(self, tokens: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a step gives; `take` makes it the last one that ended well."""
        another = self.told is None or (self.task_ and not torch.equal(self.told, tokens))
        since, mood = (torch.full((1,), 2.0), self.net.begin(tokens)) if another else (self.since, self.mood)
        with torch.no_grad():
            return self.net(tokens, x, self.hidden, self.cell, self.ring, self.count, self.previous, self.last, since,
                            mood)

    def take(self, tokens: torch.Tensor, x: torch.Tensor, found: dict[str, torch.Tensor]) -> None:
        self.hidden, self.cell, self.ring = found["hidden.next"], found["cell.next"], found["ring.next"]
        self.count, self.previous, self.last = found["count.next"], found["action"], x
        self.since, self.mood, self.told = found["since.next"], found["mood.next"], tokens
