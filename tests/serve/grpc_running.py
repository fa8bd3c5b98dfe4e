"""LeRobot's server in the test's own process, for tests in whichever environment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import vlacompile as vc
from tests.serve.serving import Loop, Running
from vlart.serve.access import Access
from vlart.serve.grpc_service import GrpcLimits, GrpcServer
from vlart.serve.observations import Intake
from vlart.serve.policy_host import PolicyHost
from vlart.serve.tokenized_texts import Instructions


@contextlib.contextmanager
def grpc_server(bundle: vc.Bundle, *, access=Access(), limits=GrpcLimits(), wait_s=0.2,
                instructions: Instructions | None = None, ignored=(), **host_settings) -> Iterator[Running]:
    host, loop = PolicyHost(bundle.path, threads=1, **host_settings), Loop()
    try:
        async def listen():
            intake = Intake(host.plan, ignored=ignored, instructions=instructions)
            server = GrpcServer(host, intake, access, limits, wait_s=wait_s)
            return server, await server.listen("127.0.0.1", 0)

        running = Running(*(lambda pair: (pair[0], host, loop, pair[1]))(loop.run(listen())))
        yield running
        if not running.ended:
            running.end()
    finally:
        host.stop(10)
        loop.close()
