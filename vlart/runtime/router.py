"""`Router`: libvlart's router from Python, with the same decisions and learnt posteriors as on a robot."""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlart.bundle.format.layout import NONE
from vlart.errors import ConfigError
from vlart.runtime.library import Diag, RouterDecision, RouterInfo, RouterOptions, check, libvlart
from vlart.runtime.open_bundle import path_bytes
from vlart.runtime.own_process import OwnProcess
from vlart.runtime.recorder import Recorder

BY = ("text", "embedding", "words", "nothing")
LEVELS = ("task", "cluster", "all", "prior")
OUTCOMES = (None, True, False)
_OK, _NOT_FOUND = 0, 19


@dataclass(frozen=True)
class Routed:
    """One decision, as vlart_decision_t. alpha, beta, probability, cost_ms: per backbone. success: the outcome, if it
    was reported before the decision was drained; else None."""

    sequence: int
    text: str
    route: int
    cluster: int | None
    by: str
    similarity: float
    level: str
    backbone: str
    delta: float
    tau: float
    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    probability: tuple[float, ...]
    cost_ms: tuple[float, ...]
    success: bool | None


class Router:
    """table: the .bin file of `vlacompile route fit`. state: path, without extension, where outcomes are stored; None:
    they are not stored.

    Raises RuntimeFailure with libvlart's status and message.
    """

    def __init__(self, table: str | Path, state: str | Path | None = None, *, log_capacity: int = 0):
        self._library, self._diag, self._where = libvlart(), Diag(), str(table)
        self._owner = OwnProcess("router")
        path, size, router = path_bytes("the table", table), c.c_size_t(), c.c_void_p()
        options = RouterOptions(state=None if state is None else path_bytes("the state", state),
                                log_capacity=log_capacity)
        self._check(self._library.vlart_router_required_bytes(path, c.byref(options), c.byref(self._diag),
                                                              c.byref(size)))
        self._arena = c.create_string_buffer(size.value)
        self._check(self._library.vlart_router_init(path, c.byref(options), self._arena, size.value,
                                                    c.byref(self._diag), c.byref(router)))
        self._router = router
        self._recorder: Recorder | None = None
        self.backbones = tuple(self._library.vlart_router_backbone(router, k).decode()
                               for k in range(self.info().backbone_count))

    def record(self, recorder: Recorder) -> None:
        """Record decisions and outcomes from here on, beside a session of the recorder."""
        recorder.record(self._library.vlart_router_record, self._router)
        self._recorder = recorder

    def close(self) -> None:
        """End its part of a recording; idempotent."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._library.vlart_router_record(self._router, None, None)
            recorder.release()

    def decide(self, text: str, embedding: Sequence[float] | None = None) -> Routed:
        if not isinstance(text, str):
            raise ConfigError(f"an instruction is a {type(text).__name__}", where="Router.decide",
                              why="the table routes texts", fix="give a str")
        if "\0" in text:
            raise ConfigError("an instruction has a zero character", where="Router.decide",
                              why="C ends a text at the first, and what is behind it would not count",
                              fix="give the text without")
        out, dim = RouterDecision(), 0 if embedding is None else len(embedding)
        try:
            numbers = None if embedding is None else (c.c_float * dim)(*embedding)
        except TypeError as error:
            raise ConfigError("an embedding holds what is no number", where="Router.decide", why=str(error),
                              fix="give its numbers") from error
        data = text.encode(errors="surrogatepass")  # which libvlart refuses, as all that is not UTF-8
        self._check(self._library.vlart_router_decide(self._own(), data, numbers, dim, c.byref(self._diag),
                                                      c.byref(out)))
        return self._routed(out)

    def report_outcome(self, success: bool) -> None:
        """Report the outcome of the episode of the last decision; it is on disk when this returns."""
        self._check(self._library.vlart_router_report_outcome(self._own(), int(bool(success)), c.byref(self._diag)))

    def drain(self) -> list[Routed]:
        """Remove and return all decisions in the log, oldest first."""
        found: list[Routed] = []
        while True:
            out = RouterDecision()
            status = self._library.vlart_router_drain(self._own(), c.byref(out))
            if status == _NOT_FOUND:
                return found
            self._check(status)
            found.append(self._routed(out))

    def info(self) -> RouterInfo:
        info = RouterInfo()
        self._check(self._library.vlart_router_info(self._own(), c.byref(info)))
        return info

    def _routed(self, d: RouterDecision) -> Routed:
        n = d.backbone_count
        cluster = None if d.cluster == NONE else d.cluster
        return Routed(d.sequence, d.text.decode(errors="replace"), d.route, cluster, BY[d.by], d.similarity,
                      LEVELS[d.level], self._library.vlart_router_backbone(self._router, d.backbone).decode(),
                      d.delta, d.tau, tuple(d.alpha[:n]), tuple(d.beta[:n]), tuple(d.probability[:n]),
                      tuple(d.cost_ms[:n]), OUTCOMES[d.outcome])

    def _own(self) -> c.c_void_p:
        """Two processes would each count their outcomes into the state of one."""
        self._owner.require(self._where)
        return self._router

    def _check(self, status: int) -> None:
        if status != _OK:
            check(status, self._diag, self._where)
