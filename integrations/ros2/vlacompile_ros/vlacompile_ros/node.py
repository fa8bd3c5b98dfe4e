"""The node: rclpy's part, and nothing else. Names, subscriptions, the timer, services; what happens is controller.py's.

Lifecycle: configure opens the bundle and subscribes, activate starts the control loop, deactivate ends the episode and
publishes nothing, cleanup closes the bundle. Everything but the inputs' callbacks runs in one callback group, so that
the control loop, services and transitions never run at the same time.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from vlacompile_msgs.srv import ReportOutcome, SetInstruction

from vlacompile_ros.controller import Command, Controller
from vlacompile_ros.diagnostics import Reporter
from vlart.errors import VlaError
from vlart.files.yaml_lines import read_yaml
from vlart.ros.mapping import COMPRESSED, IMAGE, TRAJECTORY, Topic, topic_map
from vlart.runtime.recorder import Recorder

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

TYPES = {f"{package}/msg/{of.__name__}": of for package, of in (
    ("sensor_msgs", Image), ("sensor_msgs", CompressedImage), ("sensor_msgs", JointState),
    ("std_msgs", Float64MultiArray), ("trajectory_msgs", JointTrajectory))}
LEVELS = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE)
DEPTHS = {IMAGE: 10, COMPRESSED: 10}  # messages that wait for their callback; numbers: 100
REPORT_S = 1.0
Transition = Callable[["PolicyNode", LifecycleState], TransitionCallbackReturn]


def _told(transition: Transition) -> Transition:
    """rclpy makes ERROR of an exception in a transition, without a word of it."""

    @functools.wraps(transition)
    def told(node: PolicyNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except VlaError as error:
            node.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception:  # noqa: BLE001  the outermost frame of ours
            node.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    return told


class PolicyNode(LifecycleNode):
    """Parameters: bundle, topics (the YAML file); signers, native_code, uncalibrated, record, record_mib and
    record_digests as of `vlacompile serve`."""

    def __init__(self, **options: Any):
        super().__init__("vlacompile", **options)
        self.declare_parameter("bundle", "")
        self.declare_parameter("topics", "")
        self.declare_parameter("signers", "")
        self.declare_parameter("native_code", False)
        self.declare_parameter("uncalibrated", False)
        self.declare_parameter("record", "")
        self.declare_parameter("record_mib", 64)
        self.declare_parameter("record_digests", False)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # the control rate does not jump with the time
        self._controller: Controller | None = None
        self._made: list[tuple[Any, Any]] = []  # (what destroys it, what it made)
        self._timer: Any = None
        self._said = ""

    # ---- transitions

    @_told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        value = lambda name: self.get_parameter(name).value
        located = read_yaml(value("topics"))
        topics = topic_map(located)
        record = Recorder(value("record"), content=not value("record_digests"), mib=value("record_mib")) if value(
            "record") else None
        self._controller = Controller(
            value("bundle"), topics, located.where, signers=value("signers") or None,
            native_code=value("native_code"), uncalibrated=value("uncalibrated"), record=record)
        self._reporter, self._said = Reporter(self._controller), ""
        for name, topic in topics.observation.items():
            self._subscribe(name, topic)
        if topics.instruction is not None and topics.instruction.topic is not None:
            self._keep(self.destroy_subscription, self.create_subscription(
                String, topics.instruction.topic, self._controller.instruct_message, 10,
                callback_group=MutuallyExclusiveCallbackGroup()))
        actions = topics.actions
        assert actions is not None  # open_policy refuses a map without
        self._publisher = self.create_lifecycle_publisher(TYPES[actions.type], actions.topic, 1)
        self._keep(self.destroy_lifecycle_publisher, self._publisher)
        self._reports = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self._keep(self.destroy_publisher, self._reports)
        for kind, name, call in ((Trigger, "~/reset", self._on_reset), (ReportOutcome, "~/outcome", self._on_outcome),
                                 (SetInstruction, "~/instruction", self._on_instruction)):
            self._keep(self.destroy_service, self.create_service(kind, name, call))
        self._keep(self.destroy_timer, self.create_timer(REPORT_S, self._on_report))
        return TransitionCallbackReturn.SUCCESS

    @_told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._controller is not None and self._controller.topics.actions is not None
        self._controller.reset()
        self._timer = self.create_timer(1 / self._controller.topics.actions.rate_hz, self._on_tick, clock=self._steady)
        return super().on_activate(state)

    @_told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    @_told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self._controller is not None:
            self._controller.end()

    def _release(self) -> None:
        self._stop()
        for destroy, made in reversed(self._made):
            destroy(made)
        self._made.clear()
        if self._controller is not None:
            self._controller.close()
            self._controller = None

    def _keep(self, destroy: Any, made: Any) -> None:
        self._made.append((destroy, made))

    def _subscribe(self, name: str, topic: Topic) -> None:
        controller = self._controller
        assert controller is not None
        quality = QoSProfile(depth=DEPTHS.get(topic.type, 100), reliability=ReliabilityPolicy.RELIABLE if topic.reliable
                             else ReliabilityPolicy.BEST_EFFORT)
        subscribe = functools.partial(
            self.create_subscription, TYPES[topic.type], topic.topic,
            lambda message: controller.message(name, message, self._now()), quality,
            callback_group=MutuallyExclusiveCallbackGroup())
        try:
            made = subscribe(event_callbacks=SubscriptionEventCallbacks(
                message_lost=lambda event: controller.lost(name, event.total_count_change)))
        except UnsupportedEventTypeError:  # of some middleware: what it loses is not counted
            made = subscribe()
        self._keep(self.destroy_subscription, made)

    # ---- the control loop

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _on_tick(self) -> None:
        assert self._controller is not None
        command = self._controller.tick(self._now(), self._steady.now().nanoseconds)
        if command is not None:
            self._publisher.publish(self._message(command))
        if self._controller.trouble != self._said:
            self._said = self._controller.trouble
            if self._said:
                self.get_logger().warning(self._said)

    def _message(self, command: Command) -> Any:
        actions, numbers = self._controller.topics.actions, [float(x) for x in command.action]
        if actions.type != TRAJECTORY:
            return Float64MultiArray(data=numbers)
        message = JointTrajectory(joint_names=list(actions.joints))  # stamp 0: it begins when it comes
        message.header.frame_id = actions.frame
        reach = Duration(nanoseconds=round(actions.reach_ms * 1e6 if actions.reach_ms is not None
                                           else 1e9 / actions.rate_hz))
        message.points = [JointTrajectoryPoint(positions=numbers, time_from_start=reach.to_msg())]
        return message

    # ---- services and diagnostics

    def _on_reset(self, _: Any, response: Any) -> Any:
        self._controller.reset()
        response.success, response.message = True, "an episode begins"
        return response

    def _on_outcome(self, request: Any, response: Any) -> Any:
        try:
            response.message = self._controller.outcome(request.task, request.success, request.instruction)
            response.success = True
        except VlaError as error:
            response.success, response.message = False, str(error)
        return self._with_task(response)

    def _on_instruction(self, request: Any, response: Any) -> Any:
        try:
            changed = self._controller.instruct(request.text)
            response.success, response.message = True, "accepted" if changed else "it is the instruction already"
        except VlaError as error:
            response.success, response.message = False, str(error)
        return self._with_task(response)

    def _with_task(self, response: Any) -> Any:
        task = self._controller.tasks.current
        response.task, response.backbone = (0, "") if task is None else (task.number, task.backbone or "")
        return response

    def _on_report(self) -> None:
        topics = [t.topic for t in self._controller.topics.observation.values()]
        found = {t: {p.topic_type for p in self.get_publishers_info_by_topic(t)} for t in topics}
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        for status in self._reporter.report(self._now(), found):
            message.status.append(DiagnosticStatus(
                level=LEVELS[status.level], name=f"{self.get_name()}: {status.name}", message=status.message,
                hardware_id="", values=[KeyValue(key=k, value=v) for k, v in status.values.items()]))
        self._reports.publish(message)


def main(arguments: list[str] | None = None) -> None:
    rclpy.init(args=arguments)
    node = PolicyNode()
    executor = MultiThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
