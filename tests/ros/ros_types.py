"""ROS 2's types that the node speaks, as Cyclone DDS's binding writes types: names, members and order of the .msg and
.srv files. `test_wire.py` compares their bytes with rosbags'. Without `from __future__ import annotations`, which the
binding cannot read."""

from dataclasses import dataclass, field

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import byte, float64, int32, int64, sequence, uint8, uint32, uint64


def _struct(cls: type) -> type:
    return final(dataclass(cls))


@_struct
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32 = 0
    nanosec: uint32 = 0


@_struct
class Duration(IdlStruct, typename="builtin_interfaces::msg::dds_::Duration_"):
    sec: int32 = 0
    nanosec: uint32 = 0


@_struct
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@_struct
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header = field(default_factory=Header)
    height: uint32 = 0
    width: uint32 = 0
    encoding: str = ""
    is_bigendian: uint8 = 0
    step: uint32 = 0
    data: sequence[uint8] = field(default_factory=list)


@_struct
class CompressedImage(IdlStruct, typename="sensor_msgs::msg::dds_::CompressedImage_"):
    header: Header = field(default_factory=Header)
    format: str = ""
    data: sequence[uint8] = field(default_factory=list)


@_struct
class JointState(IdlStruct, typename="sensor_msgs::msg::dds_::JointState_"):
    header: Header = field(default_factory=Header)
    name: sequence[str] = field(default_factory=list)
    position: sequence[float64] = field(default_factory=list)
    velocity: sequence[float64] = field(default_factory=list)
    effort: sequence[float64] = field(default_factory=list)


@_struct
class String(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str = ""


@_struct
class MultiArrayDimension(IdlStruct, typename="std_msgs::msg::dds_::MultiArrayDimension_"):
    label: str = ""
    size: uint32 = 0
    stride: uint32 = 0


@_struct
class MultiArrayLayout(IdlStruct, typename="std_msgs::msg::dds_::MultiArrayLayout_"):
    dim: sequence[MultiArrayDimension] = field(default_factory=list)
    data_offset: uint32 = 0


@_struct
class Float64MultiArray(IdlStruct, typename="std_msgs::msg::dds_::Float64MultiArray_"):
    layout: MultiArrayLayout = field(default_factory=MultiArrayLayout)
    data: sequence[float64] = field(default_factory=list)


@_struct
class JointTrajectoryPoint(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectoryPoint_"):
    positions: sequence[float64] = field(default_factory=list)
    velocities: sequence[float64] = field(default_factory=list)
    accelerations: sequence[float64] = field(default_factory=list)
    effort: sequence[float64] = field(default_factory=list)
    time_from_start: Duration = field(default_factory=Duration)


@_struct
class JointTrajectory(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectory_"):
    header: Header = field(default_factory=Header)
    joint_names: sequence[str] = field(default_factory=list)
    points: sequence[JointTrajectoryPoint] = field(default_factory=list)


@_struct
class KeyValue(IdlStruct, typename="diagnostic_msgs::msg::dds_::KeyValue_"):
    key: str = ""
    value: str = ""


@_struct
class DiagnosticStatus(IdlStruct, typename="diagnostic_msgs::msg::dds_::DiagnosticStatus_"):
    level: byte = b"\0"  # of one byte in rclpy
    name: str = ""
    message: str = ""
    hardware_id: str = ""
    values: sequence[KeyValue] = field(default_factory=list)


DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE = b"\0", b"\1", b"\2", b"\3"


@_struct
class DiagnosticArray(IdlStruct, typename="diagnostic_msgs::msg::dds_::DiagnosticArray_"):
    header: Header = field(default_factory=Header)
    status: sequence[DiagnosticStatus] = field(default_factory=list)


# Requests and responses as rmw_cyclonedds_cpp puts them on the wire: who asks and its number first, then the members of
# the .srv file, of which the IDL wants at least one.


@_struct
class TriggerRequest(IdlStruct, typename="std_srvs::srv::dds_::Trigger_Request_"):
    guid: uint64 = 0
    seq: int64 = 0
    structure_needs_at_least_one_member: uint8 = 0


@_struct
class TriggerResponse(IdlStruct, typename="std_srvs::srv::dds_::Trigger_Response_"):
    guid: uint64 = 0
    seq: int64 = 0
    success: bool = False
    message: str = ""


@_struct
class SetInstructionRequest(IdlStruct, typename="vlacompile_msgs::srv::dds_::SetInstruction_Request_"):
    guid: uint64 = 0
    seq: int64 = 0
    text: str = ""


@_struct
class SetInstructionResponse(IdlStruct, typename="vlacompile_msgs::srv::dds_::SetInstruction_Response_"):
    guid: uint64 = 0
    seq: int64 = 0
    success: bool = False
    message: str = ""
    task: uint64 = 0
    backbone: str = ""


@_struct
class ReportOutcomeRequest(IdlStruct, typename="vlacompile_msgs::srv::dds_::ReportOutcome_Request_"):
    guid: uint64 = 0
    seq: int64 = 0
    task: uint64 = 0
    success: bool = False
    instruction: str = ""


@_struct
class ReportOutcomeResponse(IdlStruct, typename="vlacompile_msgs::srv::dds_::ReportOutcome_Response_"):
    guid: uint64 = 0
    seq: int64 = 0
    success: bool = False
    message: str = ""
    task: uint64 = 0
    backbone: str = ""


ON_THE_WIRE = ("guid", "seq")  # of a request and a response: no members of the .srv file


class Trigger:
    Request, Response = TriggerRequest, TriggerResponse


class SetInstruction:
    Request, Response = SetInstructionRequest, SetInstructionResponse


class ReportOutcome:
    Request, Response = ReportOutcomeRequest, ReportOutcomeResponse


SERVICES = {"std_srvs": (Trigger,), "vlacompile_msgs": (SetInstruction, ReportOutcome)}
PACKAGES = {
    "builtin_interfaces": (Time, Duration), "std_msgs": (Header, String, MultiArrayDimension, MultiArrayLayout,
                                                         Float64MultiArray),
    "sensor_msgs": (Image, CompressedImage, JointState), "trajectory_msgs": (JointTrajectoryPoint, JointTrajectory),
    "diagnostic_msgs": (KeyValue, DiagnosticStatus, DiagnosticArray)}
NAMES = {of: f"{package}/msg/{of.__name__}" for package, types in PACKAGES.items() for of in types}
