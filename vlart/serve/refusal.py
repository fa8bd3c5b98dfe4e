"""The error that a client gets when its request is refused."""

from __future__ import annotations

from vlart.errors import VlaError, printable

MOST_BYTES = 400  # of a field: gRPC sends a refusal in a header, of at most 8 KiB, where a byte may take three

KINDS = ("malformed", "refused", "busy", "superseded", "stopping", "failed")


class Refusal(VlaError):
    """A refused request of a client. kind: "malformed" (not a message of this protocol), "refused" (the observation
    does not fit the policy), "busy" (try again), "superseded" (a newer observation took its turn), "stopping" (the
    server is stopping), "failed" (the runtime)."""

    def __init__(self, what: str, *, where: str, why: str, fix: str, kind: str = "refused"):
        assert kind in KINDS
        super().__init__(_cut(what), where=_cut(where), why=_cut(why), fix=_cut(fix))
        self.kind = kind

    def as_dict(self) -> dict[str, str]:
        return super().as_dict() | {"kind": self.kind}


def _cut(text: str) -> str:
    """A client's own names may be of any length."""
    shown = printable(text[:MOST_BYTES + 1])
    return shown if len(shown.encode()) <= MOST_BYTES else shown.encode()[:MOST_BYTES].decode(errors="ignore") + " ..."
