"""The messages of LeRobot 0.4.4's `transport/services.proto` that asynchronous inference uses.

They have a descriptor pool of their own, so as not to collide with LeRobot's if it is loaded in the same process.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {"Observation": (("transfer_state", 1, _FIELD.TYPE_INT32), ("data", 2, _FIELD.TYPE_BYTES)),
             "Actions": (("data", 1, _FIELD.TYPE_BYTES),), "PolicySetup": (("data", 1, _FIELD.TYPE_BYTES),),
             "Empty": ()}


def _file() -> descriptor_pb2.FileDescriptorProto:
    """transfer_state is an enum there, which is an int32 on the wire."""
    file = descriptor_pb2.FileDescriptorProto(name="vlacompile/transport.proto", package="transport", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(name=field, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
Observation, Actions, PolicySetup, Empty = (
    message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"transport.{name}")) for name in _MESSAGES)
