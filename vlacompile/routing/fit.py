"""Evaluation logs -> routing table: evidence per instruction and backbone, clusters, and the thresholds of the rule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vlacompile.routing.backbone_costs import Cost
from vlacompile.routing.clusters import spaces
from vlacompile.routing.decide import decide
from vlacompile.routing.logs import Episode
from vlacompile.routing.table import Backbone, Evidence, Prior, Route, RoutingTable, Rule
from vlacompile.routing.words import MOST_BYTES, normalised
from vlart.errors import ConfigError

DELTAS = (0.0, 0.01, 0.02, 0.05, 0.1)
TAUS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # above 0.5 the light backbone would not be the default without evidence
FOLDS = 5


def fit_table(episodes: Sequence[Episode], costs: Mapping[str, Cost], embeddings: Mapping[str, Sequence[float]] | None,
              rule: Rule, prior: Prior = Prior(), sources: Sequence[str] = ()) -> RoutingTable:
    """Backbones in the order of `costs`. Raises ConfigError if a backbone has no episode or an embedding is
    missing."""
    names = tuple(costs)
    for name in names:
        if not any(e.backbone == name for e in episodes):
            raise ConfigError(f'there is no episode of "{name}"', where="vlacompile route fit",
                              why="the given logs and states contain none", fix="give its log, or other states")
    texts = list(dict.fromkeys(e.instruction for e in episodes))
    odd = [t for t in texts if not normalised(t) or len(t.encode()) > MOST_BYTES]
    if odd or len({normalised(t) for t in texts}) < len(texts):
        raise ConfigError("instructions that cannot be distinguished", where=f'"{odd[0]}"' if odd else "the logs",
                          why="they are empty, too long, or differ only in case and punctuation",
                          fix="correct the logs")
    missing = [t for t in texts if embeddings is not None and t not in embeddings]
    if missing:
        raise ConfigError("an instruction has no embedding", where=f'"{missing[0]}"',
                          why="it is not in the embeddings",
                          fix="embed every instruction of the logs, or give no embeddings")
    of, by_text, by_embedding = spaces(texts, embeddings)
    grouped: dict[tuple[str, str], list[Episode]] = defaultdict(list)
    for e in episodes:
        grouped[e.backbone, e.instruction].append(e)
    mean_solved = {n: _mean([e.replans for e in episodes if e.backbone == n and e.success]) for n in names}
    backbones = []
    for n in names:
        failed = [e.replans for e in episodes if e.backbone == n and not e.success]
        longest = max(e.replans for e in episodes)  # a failed episode is at least that long
        backbones.append(Backbone(n, costs[n].task_ms, costs[n].replan_ms, _mean(failed) if failed else float(longest)))
    routes = [Route(t, cluster, tuple(_evidence(grouped[n, t], mean_solved[n]) for n in names))
              for t, cluster in zip(texts, of, strict=True)]
    nothing = tuple(Evidence(0.0, 0.0, mean_solved[n]) for n in names)
    routes += [Route("", c, nothing) for c in (*range(max(of) + 1), None)]
    table = RoutingTable(tuple(backbones), tuple(routes), prior, rule, by_text, by_embedding, tuple(sources))
    return table.check("vlacompile route fit")


def _evidence(episodes: Sequence[Episode], mean_solved: float) -> Evidence:
    """An initial state that was evaluated several times counts once, with its mean outcome."""
    by_state: dict[int, list[bool]] = defaultdict(list)
    for e in episodes:
        by_state[e.state].append(e.success)
    successes = sum(sum(outcomes) / len(outcomes) for _, outcomes in sorted(by_state.items()))
    solved = [e.replans for e in episodes if e.success]
    return Evidence(float(successes), float(len(by_state) - successes), _mean(solved) if solved else mean_solved)


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


@dataclass(frozen=True)
class Outcome:
    """Recorded episodes replayed with a routing. success: share; cost_ms: mean per episode; heavy: share of episodes
    routed to the last backbone."""

    episodes: int
    success: float
    cost_ms: float
    heavy: float


def replayed(episodes: Sequence[Episode], costs: Mapping[str, Cost], choice) -> Outcome:
    """The outcome of the recorded episodes under choice(instruction, state, {backbone: episodes}) -> backbone.

    Over pairs (instruction, state) that every backbone has played; repeated episodes are averaged.
    """
    names, found = tuple(costs), paired(episodes, tuple(costs))
    success = cost = heavy = 0.0
    for (text, state), of in found.items():
        name = choice(text, state, of)
        success += _mean([e.success for e in of[name]])
        cost += costs[name].task_ms + costs[name].replan_ms * _mean([e.replans for e in of[name]])
        heavy += name == names[-1]
    n = max(len(found), 1)
    return Outcome(len(found), success / n, cost / n, heavy / n)


def paired(episodes: Sequence[Episode], names: tuple[str, ...]) -> dict[tuple[str, int], dict[str, list[Episode]]]:
    found: dict[tuple[str, int], dict[str, list[Episode]]] = defaultdict(lambda: defaultdict(list))
    for e in episodes:
        found[e.instruction, e.state][e.backbone].append(e)
    return {k: v for k, v in sorted(found.items()) if all(n in v for n in names)}


def by_table(table: RoutingTable):
    """The choice by a table, which is the same for every state of an instruction."""
    names = [b.name for b in table.backbones]
    chosen: dict[str, str] = {}

    def choice(text: str, state: int, of) -> str:
        if text not in chosen:
            chosen[text] = names[decide(table, text).backbone]
        return chosen[text]

    return choice


def best(text: str, state: int, of: Mapping[str, list[Episode]]) -> str:
    """The oracle, which knows the outcomes: the backbone that succeeds most often in this state; the first on a tie."""
    return max(of, key=lambda n: (_mean([e.success for e in of[n]]), -list(of).index(n)))


@dataclass(frozen=True)
class Choice:
    """rule: the chosen one. routed, heavy: cross-validated outcomes of the rule and of the last backbone alone. kept:
    whether loss and cost are within the limits; if no rule's are, the one that loses least within the budget."""

    rule: Rule
    routed: Outcome
    heavy: Outcome
    kept: bool


def choose_rule(episodes: Sequence[Episode], costs: Mapping[str, Cost],
                embeddings: Mapping[str, Sequence[float]] | None, allowed: float = 0.01, budget: float = math.inf,
                prior: Prior = Prior()) -> Choice:
    """The delta and tau of lowest mean cost among those that lose at most `allowed` of the last backbone's success rate
    and cost at most `budget` of its cost, by cross-validation: states are divided into folds, and each fold is routed
    by
    a table fitted on the others. On a tie the smaller delta, then the larger tau: the more careful one."""
    states = sorted({e.state for e in episodes})
    folds = [frozenset(states[i::FOLDS]) for i in range(min(FOLDS, len(states)))]
    last = tuple(costs)[-1]
    heavy = replayed(episodes, costs, lambda text, state, of: last)
    if len(folds) < 2 or not heavy.episodes:
        raise ConfigError("too few episodes to choose delta and tau", where="vlacompile route fit",
                          why="at least two states must be played by every backbone", fix="give --delta and --tau")
    tables = [(fold, fit_table([e for e in episodes if e.state not in fold], costs, embeddings, Rule(0.0, 0.5), prior))
              for fold in folds]
    found = []
    for delta in DELTAS:
        for tau in TAUS:
            rule = Rule(delta, tau)
            routed = _crossed(episodes, costs, [(fold, by_table(replace(t, rule=rule))) for fold, t in tables])
            found.append((rule, routed))
    cheap = [f for f in found if f[1].cost_ms <= budget * heavy.cost_ms]
    good = [f for f in cheap if f[1].success >= heavy.success - allowed - 1e-12]
    if good:
        rule, routed = min(good, key=lambda f: (f[1].cost_ms, f[0].delta, -f[0].tau))
    else:
        rule, routed = max(cheap or found, key=lambda f: (f[1].success, -f[1].cost_ms))
    return Choice(rule, routed, heavy, bool(good))


def _crossed(episodes: Sequence[Episode], costs: Mapping[str, Cost], folds) -> Outcome:
    def choice(text: str, state: int, of) -> str:
        return next(chooses for fold, chooses in folds if state in fold)(text, state, of)

    return replayed(episodes, costs, choice)
