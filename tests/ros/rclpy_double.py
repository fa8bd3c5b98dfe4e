"""A double of rclpy: what node.py calls of it, written from rclpy's documentation and sources (Humble, Jazzy).

Strict where rclpy is: a message's members have their types, a publisher that is not active publishes nothing, names and
qualities of service must agree, an exception in a transition becomes ERROR without a word. Callbacks run when the
test says so. `Transport` carries messages within the process; wire.py has one over DDS.
"""

from __future__ import annotations

import enum
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from typing import Any, NamedTuple

from cyclonedds.idl.types import byte

from tests.ros import ros_types
from tests.ros.ros_types import NAMES

S = 1_000_000_000
# Names that Node and LifecycleNode of Humble and Jazzy keep to themselves.
TAKEN = frozenset("""
    _allow_undeclared_parameters _apply_descriptor _apply_descriptor_and_set _apply_descriptors
    _apply_floating_point_range _apply_integer_range _call_post_set_parameters_callback
    _call_pre_set_parameters_callback _callbacks _check_undeclared_parameters _clients _clock _context
    _count_clients_or_servers _count_publishers_or_subscribers _declare_parameter_common _default_callback_group
    _descriptors _get_info_by_topic _guards _logger _logger_service _managed_entities _on_set_parameter_callbacks
    _on_set_parameters_callbacks _parameter_callbacks _parameter_event_publisher _parameter_overrides
    _parameter_service _parameters _parameters_callbacks _post_set_parameter_callbacks
    _post_set_parameters_callbacks _pre_set_parameter_callbacks _pre_set_parameters_callbacks _publishers
    _rate_group _service_change_state _service_get_available_states _service_get_available_transitions
    _service_get_state _service_get_transition_graph _services _set_parameters _set_parameters_atomically
    _set_parameters_atomically_common _state_machine _subscriptions _time_source _timers _type_description_service
    _validate_qos_or_depth_parameter _validate_topic_or_service_name _wake_executor
""".split())


class Reliability(enum.Enum):
    RELIABLE = 1
    BEST_EFFORT = 2


class TransitionCallbackReturn(enum.Enum):
    SUCCESS = 0
    FAILURE = 1
    ERROR = 2


class LifecycleState(NamedTuple):
    label: str
    state_id: int


class ClockType(enum.Enum):
    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3


@dataclass
class QoSProfile:
    depth: int
    reliability: Reliability = Reliability.RELIABLE


@dataclass
class MutuallyExclusiveCallbackGroup:
    pass


class UnsupportedEventTypeError(Exception):
    pass


@dataclass
class SubscriptionEventCallbacks:
    message_lost: Callable[[Any], None] | None = None


@dataclass
class Duration:
    seconds: float = 0
    nanoseconds: int = 0

    def to_msg(self) -> Any:
        whole = int(self.seconds * S) + self.nanoseconds
        return ros_types.Duration(sec=whole // S, nanosec=whole % S)


@dataclass
class Moment:
    nanoseconds: int

    def to_msg(self) -> Any:
        return ros_types.Time(sec=self.nanoseconds // S, nanosec=self.nanoseconds % S)


@dataclass
class Clock:
    clock_type: ClockType = ClockType.SYSTEM_TIME

    def now(self) -> Moment:
        world = World.current
        return Moment(world.steady_ns if self.clock_type is ClockType.STEADY_TIME else world.now_ns)


@dataclass(eq=False)
class Entity:
    """A publisher, a subscription, a timer or a service."""

    kind: str
    of: Any
    name: str
    callback: Callable | None = None
    quality: QoSProfile = field(default_factory=lambda: QoSProfile(10))
    group: Any = None
    clock: Clock | None = None
    period_s: float = 0.0
    enabled: bool = True
    events: SubscriptionEventCallbacks | None = None

    def publish(self, message: Any) -> None:
        require_typed(message, self.of)
        if self.enabled:
            World.current.transport.publish(self, message)


class Transport:
    """Within the process, at once."""

    def __init__(self) -> None:
        self.published: dict[str, list] = defaultdict(list)
        self.subscriptions: list[Entity] = []
        self.publishers: list[Entity] = []  # the robot's, and the node's
        self.services: list[Entity] = []

    def publish(self, publisher: Entity, message: Any) -> None:
        self.published[publisher.name].append(message)

    def send(self, name: str, message: Any, reliability: Reliability = Reliability.RELIABLE) -> int:
        """As another node would; returns how many subscriptions got it."""
        require_typed(message, type(message))
        heard = [s for s in self.subscriptions if s.name == name and s.of is type(message)
                 and (s.quality.reliability is Reliability.BEST_EFFORT or reliability is Reliability.RELIABLE)]
        if not any(p.name == name and p.of is type(message) for p in self.publishers):
            self.publishers.append(Entity("publisher", type(message), name))
        for subscription in heard:
            subscription.callback(message)
        return len(heard)

    def add(self, entity: Entity) -> None:
        self._of(entity.kind).append(entity)

    def remove(self, entity: Entity) -> None:
        self._of(entity.kind).remove(entity)

    def _of(self, kind: str) -> list[Entity]:
        return {"publisher": self.publishers, "subscription": self.subscriptions, "service": self.services}[kind]

    def types_on(self, name: str) -> set[str]:
        return {NAMES[p.of] for p in self.publishers if p.name == name}


class World:
    """What the nodes of a test share: the clock, the transport, what was logged."""

    current: World

    def __init__(self, transport: Transport, parameters: dict[str, Any]):
        self.transport, self.parameters = transport, parameters
        self.now_ns, self.steady_ns = 1_700_000_000 * S, 50 * S
        self.logged: list[tuple[str, str]] = []

    def pass_time(self, ns: int) -> None:
        self.now_ns, self.steady_ns = self.now_ns + ns, self.steady_ns + ns


def require_typed(message: Any, of: type) -> None:
    """rclpy's setters assert as much."""
    assert type(message) is of, f"a {type(message).__name__} is no {of.__name__}"
    for name, hint in of.__annotations__.items():
        value = getattr(message, name)
        if is_dataclass(hint):
            require_typed(value, hint)
        elif hint is str:
            assert isinstance(value, str), f"{of.__name__}.{name} is {value!r}"
        elif str(hint).find("sequence") >= 0:
            inside = hint.__metadata__[0].subtype
            for item in value:
                if is_dataclass(inside):
                    require_typed(item, inside)
                else:
                    wanted = str if inside is str else float if "float64" in str(inside) else int
                    assert type(item) is wanted, f"{of.__name__}.{name} holds {item!r}"
        elif hint is bool:
            assert type(value) is bool, f"{of.__name__}.{name} is {value!r}"
        elif hint is byte:
            assert type(value) is bytes and len(value) == 1, f"{of.__name__}.{name} is {value!r}"
        else:
            assert type(value) is int, f"{of.__name__}.{name} is {value!r}"


def answered(service: Entity, request: Any, response: Any) -> Any:
    """What the callback makes of the response, whose members rclpy checks."""
    require_typed(request, service.of.Request)
    found = service.callback(request, response)
    require_typed(found, service.of.Response)
    return found


class Logger:
    def __getattr__(self, level: str) -> Callable[[str], None]:
        return lambda text: World.current.logged.append((level, text))


class Node:
    def __init__(self, node_name: str, **_: Any):
        self._name, self._entities, self._given = node_name, [], {}

    def get_name(self) -> str:
        return self._name

    def get_logger(self) -> Logger:
        return Logger()

    def get_clock(self) -> Clock:
        return Clock(ClockType.ROS_TIME)

    def declare_parameter(self, name: str, value: Any) -> None:
        self._given[name] = World.current.parameters.get(name, value)

    def get_parameter(self, name: str) -> Any:
        return types.SimpleNamespace(value=self._given[name])

    def _entity(self, entity: Entity) -> Entity:
        self._entities.append(entity)
        if entity.kind != "timer":
            World.current.transport.add(entity)
        return entity

    def create_subscription(self, msg_type, topic, callback, qos_profile, *, callback_group=None,
                            event_callbacks=None) -> Entity:
        return self._entity(Entity("subscription", msg_type, topic, callback, _quality(qos_profile), callback_group,
                                 events=event_callbacks))

    def create_publisher(self, msg_type, topic, qos_profile, *, callback_group=None) -> Entity:
        return self._entity(Entity("publisher", msg_type, topic, quality=_quality(qos_profile), group=callback_group))

    def create_service(self, srv_type, srv_name, callback, *, callback_group=None) -> Entity:
        return self._entity(Entity("service", srv_type, srv_name.replace("~", f"/{self._name}"), callback,
                                 group=callback_group))

    def create_timer(self, timer_period_sec: float, callback, callback_group=None, clock=None) -> Entity:
        return self._entity(Entity("timer", None, "", callback, group=callback_group, clock=clock,
                                 period_s=timer_period_sec))

    def _remove_entity(self, entity: Entity) -> bool:
        self._entities.remove(entity)
        if entity.kind != "timer":
            World.current.transport.remove(entity)
        return True

    destroy_subscription = destroy_publisher = destroy_service = destroy_timer = _remove_entity

    def get_publishers_info_by_topic(self, topic_name: str) -> list:
        return [types.SimpleNamespace(topic_type=of) for of in World.current.transport.types_on(topic_name)]

    def destroy_node(self) -> None:
        for entity in list(self._entities):
            self._remove_entity(entity)

    # ---- the test's

    def entities(self, kind: str) -> list[Entity]:
        return [e for e in self._entities if e.kind == kind]

    def set(self, name: str, value: Any) -> None:
        """A parameter, as `ros2 param set` does."""
        assert name in self._given
        self._given[name] = value

    def call(self, name: str, **request: Any) -> Any:
        service, = [e for e in self.entities("service") if e.name == name]
        return answered(service, service.of.Request(**request), service.of.Response())

    def tick(self, clock: ClockType) -> None:
        """Once, the timers of this clock; None: of the node's own."""
        for timer in self.entities("timer"):
            if (timer.clock.clock_type if timer.clock else ClockType.ROS_TIME) is clock:
                timer.callback()


def _quality(given: Any) -> QoSProfile:
    return given if isinstance(given, QoSProfile) else QoSProfile(given)


TRANSITIONS = {"configure": ("unconfigured", "inactive", "unconfigured"),
               "activate": ("inactive", "active", "inactive"),
               "deactivate": ("active", "inactive", "active"), "cleanup": ("inactive", "unconfigured", "inactive"),
               "shutdown": (None, "finalized", "finalized")}


class LifecycleNode(Node):
    def __init__(self, node_name: str, **options: Any):
        super().__init__(node_name, **options)
        self.state = "unconfigured"
        self._managed: list[Entity] = []

    def create_lifecycle_publisher(self, msg_type, topic, qos_profile) -> Entity:
        made = self.create_publisher(msg_type, topic, qos_profile)
        made.enabled = False
        self._managed.append(made)
        return made

    def destroy_lifecycle_publisher(self, publisher: Entity) -> bool:
        self._managed.remove(publisher)
        return self.destroy_publisher(publisher)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        for entity in self._managed:
            entity.enabled = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        for entity in self._managed:
            entity.enabled = False
        return TransitionCallbackReturn.SUCCESS

    def trigger(self, transition: str) -> TransitionCallbackReturn:
        begins, success, failure = TRANSITIONS[transition]
        assert begins in (None, self.state), f"{transition} from {self.state}"
        before = LifecycleState(self.state, 0)
        try:
            found = getattr(self, f"on_{transition}")(before)
        except Exception:  # noqa: BLE001  as rclpy does
            found = TransitionCallbackReturn.ERROR
        assert isinstance(found, TransitionCallbackReturn)
        if found is TransitionCallbackReturn.ERROR:
            ended = self.on_error(before)
            self.state = "unconfigured" if ended is TransitionCallbackReturn.SUCCESS else "finalized"
        else:
            self.state = success if found is TransitionCallbackReturn.SUCCESS else failure
        return found


RCLPY: dict[str, dict[str, Any]] = {
    "rclpy": {}, "rclpy.callback_groups": {"MutuallyExclusiveCallbackGroup": MutuallyExclusiveCallbackGroup},
    "rclpy.clock": {"Clock": Clock, "ClockType": ClockType}, "rclpy.duration": {"Duration": Duration},
    "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {}),
                        "MultiThreadedExecutor": object},
    "rclpy.lifecycle": {"LifecycleNode": LifecycleNode, "LifecycleState": LifecycleState,
                        "TransitionCallbackReturn": TransitionCallbackReturn},
    "rclpy.qos": {"QoSProfile": QoSProfile, "ReliabilityPolicy": Reliability},
}
EVENTS = {"SubscriptionEventCallbacks": SubscriptionEventCallbacks,
          "UnsupportedEventTypeError": UnsupportedEventTypeError}


def modules(distribution: str = "jazzy") -> Iterator[tuple[str, types.ModuleType]]:
    """rclpy's and the messages' modules, as of a ROS distribution: "humble" or "jazzy"."""
    contents = {**RCLPY, "rclpy.event_handler" if distribution == "jazzy" else "rclpy.qos_event": EVENTS,
                **{f"{name}.srv": {s.__name__: s for s in of} for name, of in ros_types.SERVICES.items()},
                **{f"{name}.msg": {t.__name__: t for t in of} for name, of in ros_types.PACKAGES.items()}}
    for name in [*contents, *{n.partition(".")[0] for n in contents}]:
        module = types.ModuleType(name)
        module.__path__ = []
        module.__dict__.update(contents.get(name, {}))
        yield name, module


@contextmanager
def running(transport: Transport, distribution: str = "jazzy", **parameters: Any) -> Iterator[tuple[Any, World]]:
    """The node's class, imported with the double in place of rclpy, and its world."""
    World.current = World(transport, parameters)
    before = {n: m for n, m in sys.modules.items() if n == "vlacompile_ros.node"}
    given = dict(modules(distribution))
    sys.modules.update(given)
    sys.modules.pop("vlacompile_ros.node", None)
    try:
        from vlacompile_ros.node import PolicyNode

        yield PolicyNode, World.current
    finally:
        for name in (*given, "vlacompile_ros.node"):
            sys.modules.pop(name, None)
        sys.modules.update(before)
