"""What `vlacompile serve BUNDLE` and `vlart-serve BUNDLE` are: the server that their arguments describe."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlart.arguments import trusted
from vlart.errors import ConfigError, VlaError
from vlart.runtime.recorder import recorder_for
from vlart.serve.access import Access, decide_access
from vlart.serve.arguments import FPS
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
    recording: Path | None = None


def open_bundle(args: argparse.Namespace, phase: Callable[[str], None],
                read_instructions: Callable[[str, PolicyHost], Any]) -> Served:
    """read_instructions(checkpoint, host): of --instructions. Raises VlaError."""
    require_packages(args.protocol)
    _require_together(args)
    access = decide_access(args.host, args.api_key_file, args.no_auth, args.tls_cert, args.tls_key)
    phase("try the bundle")
    trusted(args)
    try_bundle(args.bundle, threads=args.threads, native_code=args.native_code)
    phase("open the bundle")
    host = PolicyHost(args.bundle, threads=args.threads, sessions=args.sessions, noise=args.noise, seed=args.seed,
                      backbone=args.backbone, uncalibrated=args.uncalibrated, native_code=args.native_code,
                      record=recorder_for(args, args.sessions))
    recording = None if args.record is None else Path(args.record)
    try:
        instructions = (own_instructions(host.bundle) if args.instructions is None
                        else read_instructions(args.instructions, host))
        intake = Intake(host.plan, dict(args.names), args.ignore, instructions, args.resize)
        _require_used(args, intake)
    except VlaError:
        _leave_nothing(host, recording)
        raise
    return Served(host, intake, access, Settings(args.protocol, args.host, args.port, args.http_port, args.max_message,
                                                 args.clients, args.idle, args.grace, args.fps or FPS), recording)


def _require_together(args: argparse.Namespace) -> None:
    """Options that would do nothing. Raises ConfigError."""
    for given, option, why in (
            (args.protocol != "lerobot" and args.http_port is not None, "--http-port",
             "openpi's own port has /healthz and /metrics: it is of --protocol lerobot"),
            (args.protocol != "lerobot" and args.fps is not None, "--fps", "it is of --protocol lerobot"),
            (args.noise == "client" and args.seed is not None, "--seed", "it is of --noise normal or uniform"),
            (args.signers is None and args.keep_engines, "--keep-engines", "it is of --signers"),
            (args.record is None and args.record_digests, "--record-digests", "it is of --record")):
        if given:
            raise ConfigError(f"{option} would do nothing", where="the command line", why=why,
                              fix=f"leave {option} out, or give what it belongs to")
    twice = [k for k, n in Counter(key for key, _ in args.names).items() if n > 1]
    if twice:
        raise ConfigError(f'"{twice[0]}" is mapped twice', where="--map", why="a key is of one input",
                          fix="map it once")


def _require_used(args: argparse.Namespace, intake: Intake) -> None:
    """Options about inputs that the policy does not have. Raises ConfigError."""
    inputs = intake.inputs.values()
    for given, option, has, what in (
            (args.noise != "client", f"--noise {args.noise}", any(i.update == "step" for i in inputs), "starts from"),
            (args.resize is not None, "--resize", any(i.is_image() for i in inputs), "takes frames of a camera as")):
        if given and not has:
            raise ConfigError(f"{option} would do nothing", where=f"bundle {args.bundle}",
                              why=f"there is no input that the policy {what}", fix="leave it out")


def _leave_nothing(host: PolicyHost, recording: Path | None) -> None:
    """Of a server that did not come to listen: its recording would be in the way of the next."""
    host.stop()
    if recording is not None:
        recording.unlink(missing_ok=True)


def listen(served: Served, announce: Callable[[dict, str], None]) -> str:
    """Serves until a signal. announce(document, line) says where. Returns how it ended, in words."""
    host, settings = served.host, served.settings

    def ready(at: Ready) -> None:
        announce({"policy": host.plan.name, "protocol": settings.protocol, "url": at.url, "http_url": at.http_url},
                 f"serving {host.plan.name} at {at.url}"
                 + (f", {at.http_url}/healthz and /metrics" if at.http_url else ""))

    try:
        ended = serve(host, served.intake, served.access, settings, ready)
    except ConfigError:  # it cannot listen
        _leave_nothing(host, served.recording)
        raise
    recorded = "" if host.recorded is None else f"; recorded: {host.recorded.words()}"
    late = f" after {settings.grace_s} s; requests still in progress were dropped"
    return f"stopped{'' if ended else late}{recorded}"
