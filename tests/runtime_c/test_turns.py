"""Threads that write one session's observations take turns, whatever their priorities."""

from __future__ import annotations

import contextlib
import ctypes as c
import os
import threading
import time

import numpy as np
import torch
from torch import nn
from vlart_ctypes import Policy

import vlacompile as vc
from vlart.errors import RuntimeFailure
from vlart.runtime.library import Diag

CORE = min(os.sched_getaffinity(0))


class Seen(nn.Module):
    """A picture that takes a while to copy."""

    def forward(self, image, state):
        return {"action": (state + image[:, ::512, ::512, 0].float().mean((1, 2))[:, None])[:, None, :]}


def test_an_urgent_thread_does_not_wait_for_itself(lib, ort, tmp_path):
    """Two threads on one core write sets: the urgent one waits for the other, which has to run meanwhile. By libvlart
    alone, as two callbacks in C++ would. Where this machine allows no priority, it is the same without."""
    sees = {name: vc.Source("observation") for name in ("image", "state")}
    picture = torch.zeros(1, 1024, 1024, 3, dtype=torch.uint8)
    policy = vc.Policy("seen", Seen().eval(), sees, {"image": picture, "state": torch.zeros(1, 2)})
    longest = []
    path = vc.build(policy, out=tmp_path / "s.vlab").path
    with vc.Session(path) as sets, Policy(lib, path).start(ort) as opened:
        write_all, until = lib.c.vlart_session_write_all, time.monotonic() + 2.5

        def write_on(name: str, array: np.ndarray, runs: vc.Threads, pause_s: float) -> None:
            with contextlib.suppress(RuntimeFailure):
                runs.apply()
            given, diag, longest_s = sets.tensor_set({name: array}), Diag(), 0.0
            while time.monotonic() < until:
                began = time.perf_counter()
                assert write_all(opened.session, given.tensors, 1, c.c_uint64(1), c.c_uint64(0), c.byref(diag)) == 0
                longest_s = max(longest_s, time.perf_counter() - began)
                time.sleep(pause_s)
            longest.append(longest_s)

        slow, urgent = (vc.Threads(priority=priority, cores=(CORE,)) for priority in (0, 50))
        writers = [threading.Thread(target=write_on, args=what) for what in (
            ("image", picture.numpy(), slow, 0.0), ("state", np.zeros((1, 2), np.float32), urgent, 1.3e-3))]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
    assert len(longest) == 2 and max(longest) < 0.5
