"""What the node says of itself: the content of a DiagnosticArray, a status for the policy, one for the task and one per
topic.

Must not know rclpy: levels are the numbers of diagnostic_msgs/msg/DiagnosticStatus.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vlacompile_ros.controller import FAILING, STOPPED, WAITING, Controller
from vlacompile_ros.tasks import Tasks
from vlart.errors import printable
from vlart.ros.account import Account

OK, WARN, ERROR, STALE = range(4)


@dataclass(frozen=True)
class Status:
    name: str
    level: int
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


class Reporter:
    """found: {topic: types of its publishers} as the ROS graph has them, asked for where no message came."""

    def __init__(self, controller: Controller):
        self._controller = controller
        self._before: dict[str, Account] = {}
        self._told: dict[str, Account] = {}  # instructions and outcomes, as of the last report

    def report(self, now_ns: int, found: Mapping[str, Collection[str]]) -> list[Status]:
        """Since the last report. now_ns: of the clock that stamps messages."""
        accounts = self._controller.accounts()
        statuses = [self._policy(now_ns), self._task(accounts["instruction"])]
        for name, topic in self._controller.topics.observation.items():
            statuses.append(self._topic(f"input {name}", topic.topic, topic.type, accounts[name],
                                        found.get(topic.topic, ())))
        self._before = accounts
        return statuses

    def _policy(self, now_ns: int) -> Status:
        controller, info = self._controller, self._controller.info()
        level = {STOPPED: ERROR, FAILING: ERROR, WAITING: WARN}.get(controller.state, OK)
        message = controller.state
        if controller.state in (FAILING, STOPPED, WAITING):
            message = {STOPPED: "nothing is published", FAILING: "the safe action is published",
                       WAITING: "waiting for a chunk"}[controller.state]
            why = _first(controller.trouble) or self._lacks()
            message += f": {why}" if why else ""
        age = None if controller.last_observation_ns is None else (now_ns - controller.last_observation_ns) / 1e6
        values = {
            "state": controller.state, "trouble": controller.trouble,
            "observation age ms": "" if age is None else f"{age:.1f}", "chunks": str(info.chunks),
            "chunks discarded": str(info.discarded), "observations without a chunk": str(info.failures),
            "safe actions": str(info.safe_actions), "deadline misses": str(info.deadline_misses),
            "latency ms": f"{info.latency_ns / 1e6:.1f}", "observations taken": str(controller.observations.taken),
            "observations refused": str(controller.observations.refused),
            "clock jumps": str(controller.synchroniser.jumps)}
        return Status("policy", level, message, values)

    def _task(self, instructions: Account) -> Status:
        """What is carried out, by which backbone and why; refused instructions and outcomes; the recording."""
        controller, tasks = self._controller, self._controller.tasks
        with tasks.turn:
            task, outcomes, unsaved = tasks.current, tasks.outcomes.copy(), tasks.unsaved
            values = {"task": str(task.number) if task else "", "instruction": printable(controller.instruction or ""),
                      "succeeded": str(tasks.succeeded), "failed": str(tasks.failed),
                      **(_router(tasks) if tasks.routed else {})}
        level, message = OK, "no task"
        if task is not None:
            message = f"task {task.number}" + (f", by {task.backbone}" if task.backbone else "")
        for name, account in (("outcome", outcomes), ("instruction", instructions)):
            values |= {f"{name}s received": str(account.received), f"{name}s refused": str(account.refused.total()),
                       f"last {name} refused": account.last_refusal}
            new = account.refused.total() - self._told.get(name, Account()).refused.total()
            if new:
                level, message = WARN, f"{new} {name}s were refused: {_first(account.last_refusal)}"
            self._told[name] = account
        if controller.recorder is not None:
            recorded = controller.recorder.info()
            values["recording"] = recorded.words()
            if not recorded.complete:
                level, message = WARN, f"the recording is not complete: {recorded.words()}"
        if unsaved:
            level, message = ERROR, f"an outcome is not on disk: {_first(unsaved)}"
        return Status("task", level, message, values)

    def _lacks(self) -> str:
        if self._controller.lacks_instruction():
            return "no instruction yet"
        return "" if self._controller.info().busy else "no complete observation"

    def _topic(self, name: str, topic: str, kind: str, account: Account, found: Collection[str]) -> Status:
        before = self._before.get(name.removeprefix("input "), Account())
        received = account.received - before.received
        refused = account.refused.total() - before.refused.total()
        values = {"topic": topic, "type": kind, "received": str(account.received), "used": str(account.used),
                  "superseded": str(account.superseded), "waiting": str(account.waiting), "lost": str(account.lost),
                  **{f"refused: {why}": str(count) for why, count in sorted(account.refused.items())},
                  "last refusal": account.last_refusal}
        others = sorted({*found} - {kind})
        if not received:
            message = f"no message on {topic}"
            if others and kind not in found:
                message += f": it is published as {', '.join(others)}, not {kind}"
            elif not found:
                message += ": nobody publishes it"
            return Status(name, ERROR, message, values)
        if refused:
            return Status(name, ERROR if refused == received else WARN,
                          f"{refused} of {received} messages were refused: {_first(account.last_refusal)}", values)
        return Status(name, OK, f"{received} messages", values)


def _router(tasks: Tasks) -> dict[str, str]:
    """The decision about the task, and what the router believed of each backbone when it was made."""
    task, values = tasks.current, {"router state": tasks.state_words()}
    if task is None or (decision := task.decision) is None:
        return values
    values |= {"backbone": decision.backbone, "decided by": f"{decision.by}, similarity {decision.similarity:.3f}",
               "evidence of": decision.level, "delta, tau": f"{decision.delta:g}, {decision.tau:g}"}
    for k, name in enumerate(tasks.backbones):
        alpha, beta = decision.alpha[k], decision.beta[k]
        values[f"belief {name}"] = (
            f"success {alpha / (alpha + beta):.3f} of Beta({alpha:.2f}, {beta:.2f}), good enough with "
            f"{decision.probability[k]:.3f}, {decision.cost_ms[k]:.1f} ms an episode")
    return values


def _first(text: str) -> str:
    """Line."""
    return text.partition("\n")[0]
