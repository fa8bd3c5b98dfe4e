r"""The routed pair: the light member by default, the heavy one where there is evidence that the light one fails.

    python -m examples.libero_goal.routed offline                      # recorded episodes: no simulator
    python -m examples.libero_goal.routed fit --states 0-19            # build/libero_goal/routing.json and .bin
    vlacompile build light=examples.libero_goal.policy:light heavy=examples.libero_goal.policy:heavy \
        --recipe libero-goal -o build/libero_goal/pair.vlab
    python -m examples.libero_goal.routed play --states 20-39          # closed loop, decided by libvlart
    python -m examples.libero_goal.evaluate run --member heavy --engine build/libero_goal/heavy.vlab --states 20-39
    python -m examples.libero_goal.routed compare                      # success and cost compared with the heavy one

`play` is resumable and takes --worker i/n. Costs are those of the target's profile (profiles/host/demo.json), per
instruction and per replan. Routing a listed instruction needs no encoder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

import vlacompile as vc
from examples.libero_goal.encoders import MiniLM, tokenize
from examples.libero_goal.evaluate import (
    RESULTS,
    RUNS,
    STEP_LIMIT,
    WORK,
    load,
    mcnemar,
    parse_states,
    play,
    result_file,
)
from examples.libero_goal.expert import TASKS
from examples.libero_goal.policy import IMAGES, STATE
from vlacompile.routing.backbone_costs import Cost, read_profile
from vlacompile.routing.fit import Outcome, best, by_table, choose_rule, fit_table, replayed
from vlacompile.routing.logs import Episode, of_states, read_logs
from vlacompile.routing.logs import parse_states as states_of
from vlacompile.routing.table import RoutingTable, table_text
from vlacompile.routing.table_binary import table_bytes
from vlart.files.atomic import write_whole

MEMBERS = ("light", "heavy")
PROFILE = Path("profiles/host/demo.json")
ENGINES = ("torch", "vlab")  # engines whose episodes are used as evidence: both run the policies in fp32
TABLE = WORK / "routing.json"
BUNDLE = WORK / "pair.vlab"
CLOSED_LOOP = Path("profiles/host/routed.json")
ALLOWED, BUDGET = 0.01, 0.6  # allowed loss of success rate, and share of the heavy member's cost


def embeddings(texts: list[str]) -> dict[str, list[float]]:
    """Mean of MiniLM's token outputs, normalised: the light member runs this encoder anyway."""
    import torch

    encoder, out = MiniLM(), {}
    for text in texts:
        ids, mask = tokenize("light", text)
        with torch.no_grad():
            out[text] = torch.nn.functional.normalize(encoder(ids, mask)[0][mask[0]].mean(0), dim=0).tolist()
    return out


def recorded() -> list[Episode]:
    return read_logs(str(RESULTS / f"{m}-{e}.jsonl") for m in MEMBERS for e in ENGINES)


def fitted(episodes: list[Episode], costs: dict[str, Cost], vectors: dict[str, list[float]]) -> RoutingTable:
    choice = choose_rule(episodes, costs, vectors, ALLOWED, BUDGET)
    logs = sorted({e.log for e in episodes})
    return fit_table(episodes, costs, vectors, choice.rule, sources=[f"log {name}" for name in logs])


def fit(arguments: argparse.Namespace) -> None:
    costs = read_profile(PROFILE, MEMBERS)
    episodes = of_states(recorded(), states_of(arguments.states))
    table = fitted(episodes, costs, embeddings(sorted({e.instruction for e in episodes})))
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    write_whole(TABLE, table_text(table).encode())
    write_whole(TABLE.with_suffix(".bin"), table_bytes(table))
    write_whole(TABLE.with_suffix(".states"), arguments.states.encode())
    print(f"{TABLE}: delta {table.rule.delta:g}, tau {table.rule.tau:g}; see `vlacompile route show {TABLE}`")


def offline(arguments: argparse.Namespace) -> None:
    """Recorded episodes, each half of the states routed by a table fitted on the other half; nothing is run."""
    costs, episodes = read_profile(PROFILE, MEMBERS), recorded()
    vectors = embeddings(sorted({e.instruction for e in episodes}))
    both = sorted({e.state for e in episodes if e.backbone == MEMBERS[-1]})
    rows: dict[str, list[Outcome]] = {"light": [], "heavy": [], "routed": [], "oracle": []}
    for half in range(arguments.parts):
        held = frozenset(both[half::arguments.parts])
        table = fitted([e for e in episodes if e.state not in held], costs, vectors)
        test = of_states(episodes, held)
        for name, choice in (("light", lambda *_: "light"), ("heavy", lambda *_: "heavy"), ("routed", by_table(table)),
                             ("oracle", best)):
            rows[name].append(replayed(test, costs, choice))
        print(f"part {half + 1}/{arguments.parts}: delta {table.rule.delta:g}, tau {table.rule.tau:g}, "
              f"escalates {100 * rows['routed'][-1].heavy:.0f} % of the episodes")
    totals = {name: whole(parts) for name, parts in rows.items()}
    print_outcomes(totals)
    if arguments.record:
        text = json.dumps({"parts": arguments.parts, "engines": ENGINES,
                           "costs": {n: asdict(c) for n, c in costs.items()},
                           "outcomes": {n: asdict(o) for n, o in totals.items()}}, indent=1)
        write_whole("profiles/host/routing.json", (text + "\n").encode())


def whole(parts: list[Outcome]) -> Outcome:
    n = sum(p.episodes for p in parts)
    return Outcome(n, *(sum(getattr(p, k) * p.episodes for p in parts) / n for k in ("success", "cost_ms", "heavy")))


def print_outcomes(totals: dict[str, Outcome]) -> None:
    heavy = totals["heavy"]
    for name, o in totals.items():
        share = 100 * o.cost_ms / heavy.cost_ms
        print(f"{name:7s} {100 * o.success:5.1f} %  {o.cost_ms:5.1f} ms per episode ({share:3.0f} % of heavy)  "
              f"{100 * o.heavy:3.0f} % escalated  {o.episodes} pairs of instruction and state")


class Pair:
    """Both members in one bundle, behind a router."""

    def __init__(self, bundle: Path, table: Path, state: str | None):
        self.routed = vc.RoutedSession(bundle, table, state, log_capacity=16, threads=1)
        self.seconds = 0.0

    def reset(self, text: str) -> None:
        self.seconds = 0.0
        self.output = f"{self._timed(self.routed.begin, text).backbone}.action"

    def act(self, images, state):
        return self._timed(self._act, images, state)

    def _act(self, images, state):
        session = self.routed.session
        for camera, image in images.items():
            session.write(IMAGES[camera], image[None])
        session.write(STATE, state[None])
        session.step()
        return session.read(self.output)[0]

    def _timed(self, call, *arguments):
        began = time.perf_counter()
        result = call(*arguments)
        self.seconds += time.perf_counter() - began
        return result


def closed_loop(arguments: argparse.Namespace) -> None:
    from examples.libero_goal.scene import GoalScene

    table = TABLE.with_suffix(".bin")
    seen = states_of(TABLE.with_suffix(".states").read_text(encoding="utf-8"))
    states = parse_states(arguments.states, arguments.acceptance)
    if seen & set(states):
        raise SystemExit(f"states {sorted(seen & set(states))} were used for fitting: choose others")
    index, workers = map(int, arguments.worker.split("/"))
    settings = {"member": "routed", "engine": "vlab", "table": hashlib.sha256(table.read_bytes()).hexdigest(),
                "learns": arguments.learn, "bundle": vc.load(BUNDLE).hash, "step_limit": STEP_LIMIT}
    path = result_file(arguments.name, settings)
    done = {(e.task, e.state) for e in load(path)} if path.is_file() else set()
    jobs = [j for j in [(t, s) for s in states for t in TASKS][index::workers] if j not in done]
    pair = Pair(BUNDLE, table, str(WORK / f"router-{index}") if arguments.learn else None)
    scene = GoalScene()
    for task, state in tqdm(jobs, desc=arguments.name, mininterval=5):
        episode = play(scene, pair, task, state, scene.instructions[task])
        if arguments.learn:
            pair.routed.end(episode.success)
        decisions = [asdict(d) | {"task": task, "state": state, "seconds": pair.seconds}
                     for d in pair.routed.router.drain()]
        with path.with_suffix(".decisions").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(d) + "\n" for d in decisions)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(episode)) + "\n")


def compare(arguments: argparse.Namespace) -> None:
    """The routed pair and the heavy member on the same states; costs by the profile, and as measured."""
    costs = read_profile(PROFILE, MEMBERS)
    routed, heavy = ({(e.task, e.state): e for e in load(RUNS / f"{n}.jsonl")}
                     for n in (arguments.name, arguments.heavy))
    rows = map(json.loads, (RUNS / f"{arguments.name}.decisions").read_text(encoding="utf-8").splitlines())
    took = {(r["task"], r["state"]): r["backbone"] for r in rows}
    common = sorted(routed.keys() & heavy.keys() & took.keys())
    if not common:
        raise SystemExit("there is no state that both have run")

    def cost(member: str, replans: int) -> float:
        return costs[member].task_ms + costs[member].replan_ms * replans

    def mean(numbers) -> float:
        return sum(numbers) / len(common)

    totals = {"routed": Outcome(len(common), mean(routed[k].success for k in common),
                                mean(cost(took[k], routed[k].replans) for k in common),
                                mean(took[k] == "heavy" for k in common)),
              "heavy": Outcome(len(common), mean(heavy[k].success for k in common),
                               mean(cost("heavy", heavy[k].replans) for k in common), 1.0)}
    print_outcomes(totals)
    only = [sum(a[k].success and not b[k].success for k in common) for a, b in ((routed, heavy), (heavy, routed))]
    print(f"solved only by the routed pair {only[0]}, only by heavy {only[1]}; "
          f"exact McNemar p = {mcnemar(*only):.3f}")
    lost, share = totals["heavy"].success - totals["routed"].success, totals["routed"].cost_ms / totals["heavy"].cost_ms
    good = lost <= ALLOWED + 1e-12 and share <= BUDGET and len(common) >= 100
    print(f"at most {100 * ALLOWED:g} point lost at {100 * BUDGET:g} % of the cost over 100 states or more: "
          + ("yes" if good else "no"))
    if arguments.record:
        for name, file in ((arguments.name, f"{arguments.name}.jsonl"),
                           (arguments.heavy, f"{arguments.name}-heavy.jsonl")):
            rows = [e for e in load(RUNS / f"{name}.jsonl") if (e.task, e.state) in common]
            write_whole(RESULTS / file, "".join(json.dumps(asdict(e)) + "\n" for e in rows).encode())
        write_whole(RESULTS / f"{arguments.name}.decisions", (RUNS / f"{arguments.name}.decisions").read_bytes())
        document = json.loads(CLOSED_LOOP.read_text(encoding="utf-8")) if CLOSED_LOOP.is_file() else {}
        document[arguments.name] = {
            "states": sorted({s for _, s in common}),
            "fitted_on": TABLE.with_suffix(".states").read_text(encoding="utf-8"),
            "learns": json.loads((RUNS / f"{arguments.name}.settings.json").read_text(encoding="utf-8"))["learns"],
            "outcomes": {n: asdict(o) for n, o in totals.items()}, "solved_by_one_alone": only,
            "p": mcnemar(*only), "allowed": ALLOWED, "budget": BUDGET, "within": good}
        write_whole(CLOSED_LOOP, (json.dumps(document, indent=1) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("offline", help="replay recorded episodes with routing")
    p.add_argument("--parts", type=int, default=2,
                   help="number of parts of the states, each routed by a table fitted on the others")
    p.add_argument("--record", action="store_true", help="write profiles/host/routing.json")
    p.set_defaults(function=offline)
    p = verbs.add_parser("fit", help="fit the routing table on recorded episodes")
    p.add_argument("--states", default="0-19", help="official initial states to fit on")
    p.set_defaults(function=fit)
    p = verbs.add_parser("play", help="closed loop with the table and both members in one bundle")
    p.add_argument("--states", default="20-39")
    p.add_argument("--acceptance", action="store_true", help="allow the states 40-49")
    p.add_argument("--worker", default="0/1", help="i/n: this process takes every n-th episode")
    p.add_argument("--learn", action="store_true", help="report outcomes to the router, which stores them on disk")
    p.add_argument("--name", default="routed-vlab", help="name of the result file")
    p.set_defaults(function=closed_loop)
    p = verbs.add_parser("compare", help="compare the routed pair with heavy")
    p.add_argument("--name", default="routed-vlab")
    p.add_argument("--heavy", default="heavy-vlab")
    p.add_argument("--record", action="store_true", help=f"write {CLOSED_LOOP}, and the episodes to results/")
    p.set_defaults(function=compare)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
