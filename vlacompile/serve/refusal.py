"""The error that a client gets when its request is refused."""

from __future__ import annotations

from vlacompile.errors import VlaError

KINDS = ("malformed", "refused", "busy", "stopping", "failed")


class Refusal(VlaError):
    """A refused request of a client. kind: "malformed" (not a message of this protocol), "refused" (the observation
    does
    not fit the policy), "busy" (try again), "stopping" (the server is stopping), "failed" (the runtime)."""

    def __init__(self, what: str, *, where: str, why: str, fix: str, kind: str = "refused"):
        assert kind in KINDS
        super().__init__(what, where=where, why=why, fix=fix)
        self.kind = kind

    def as_dict(self) -> dict[str, str]:
        return super().as_dict() | {"kind": self.kind}
