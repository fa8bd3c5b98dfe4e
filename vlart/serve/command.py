"""What `vlacompile serve BUNDLE` and `vlart-serve BUNDLE` are: the server that their arguments describe."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlart.arguments import trusted
from vlart.runtime.recorder import recorder_for
from vlart.serve.access import Access, decide_access
from vlart.serve.observations import Intake
from vlart.serve.policy_host import PolicyHost
from vlart.serve.server import Ready, Settings, require_packages, serve
from vlart.serve.tokenized_texts import own_instructions
from vlart.verify.trial import try_bundle


@dataclass(frozen=True)
class Served:
    """What is ready to listen."""

    host: PolicyHost
    intake: Intake
    access: Access
    settings: Settings


def open_bundle(args: argparse.Namespace, phase: Callable[[str], None],
                read_instructions: Callable[[str, PolicyHost], Any]) -> Served:
    """read_instructions(checkpoint, host): of --instructions. Raises VlaError."""
    require_packages(args.protocol)
    access = decide_access(args.host, args.api_key_file, args.no_auth, args.tls_cert, args.tls_key)
    phase("try the bundle")
    trusted(args)
    try_bundle(args.bundle, threads=args.threads, native_code=args.native_code)
    phase("open the bundle")
    host = PolicyHost(args.bundle, threads=args.threads, sessions=args.sessions, noise=args.noise, seed=args.seed,
                      backbone=args.backbone, uncalibrated=args.uncalibrated, native_code=args.native_code,
                      record=recorder_for(args, args.sessions))
    instructions = (own_instructions(host.bundle) if args.instructions is None
                    else read_instructions(args.instructions, host))
    intake = Intake(host.plan, dict(args.names), args.ignore, instructions, args.resize)
    return Served(host, intake, access, Settings(args.protocol, args.host, args.port, args.http_port, args.max_message,
                                                 args.clients, args.idle, args.grace, args.fps))


def listen(served: Served, announce: Callable[[dict, str], None]) -> str:
    """Serves until a signal. announce(document, line) says where. Returns how it ended, in words."""
    host, settings = served.host, served.settings

    def ready(at: Ready) -> None:
        announce({"policy": host.plan.name, "protocol": settings.protocol, "url": at.url, "http_url": at.http_url},
                 f"serving {host.plan.name} at {at.url}"
                 + (f", {at.http_url}/healthz and /metrics" if at.http_url else ""))

    ended = serve(host, served.intake, served.access, settings, ready)
    recorded = "" if host.recorded is None else f"; recorded: {host.recorded.words()}"
    late = f" after {settings.grace_s} s; requests still in progress were dropped"
    return f"stopped{'' if ended else late}{recorded}"
