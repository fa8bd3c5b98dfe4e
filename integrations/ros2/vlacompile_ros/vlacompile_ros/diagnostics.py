"""What the node says of itself: the content of a DiagnosticArray, one status for the policy and one per topic.

Must not know rclpy: levels are the numbers of diagnostic_msgs/msg/DiagnosticStatus.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vlacompile_ros.controller import FAILING, STOPPED, WAITING, Controller
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

    def report(self, now_ns: int, found: Mapping[str, Collection[str]]) -> list[Status]:
        """Since the last report. now_ns: of the clock that stamps messages."""
        accounts = self._controller.accounts()
        statuses = [self._policy(now_ns)]
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
            why = controller.trouble.partition("\n")[0] or self._lacks()
            message += f": {why}" if why else ""
        age = None if controller.last_observation_ns is None else (now_ns - controller.last_observation_ns) / 1e6
        values = {
            "state": controller.state, "instruction": controller.instruction or "", "trouble": controller.trouble,
            "observation age ms": "" if age is None else f"{age:.1f}", "chunks": str(info.chunks),
            "chunks discarded": str(info.discarded), "observations without a chunk": str(info.failures),
            "safe actions": str(info.safe_actions), "deadline misses": str(info.deadline_misses),
            "latency ms": f"{info.latency_ns / 1e6:.1f}", "observations taken": str(controller.observations.taken),
            "observations refused": str(controller.observations.refused),
            "clock jumps": str(controller.synchroniser.jumps), "succeeded": str(controller.succeeded),
            "failed": str(controller.failed)}
        return Status("policy", level, message, values)

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
            said = account.last_refusal.partition("\n")[0]
            return Status(name, ERROR if refused == received else WARN,
                          f"{refused} of {received} messages were refused: {said}", values)
        return Status(name, OK, f"{received} messages", values)
