"""`vlacompile serve BUNDLE`."""

from __future__ import annotations

import argparse

from vlacompile.cli.arguments import UNCALIBRATED, positive, thread_count
from vlacompile.cli.terminal import Terminal

SUMMARY = "answer the clients of openpi or LeRobot with a bundle"
DESCRIPTION = """Run a bundle behind a protocol that robots' programs speak already: their
clients need no change. Everything that arrives is checked against the bundle
before the policy sees it, and refused with what/where/why/fix.

protocols:
  openpi    openpi-client's WebsocketClientPolicy: MessagePack over a websocket.
            GET /healthz and /metrics (Prometheus) are on the same port.
  lerobot   LeRobot 0.4.4's asynchronous inference (robot_client.py): gRPC. Its
            pickles are read as data; nothing in them is imported or called.
            /healthz and /metrics need --http-port.

Clients name the policy's inputs as the bundle does (vlacompile inspect BUNDLE),
with "/" for "." if they like; --map renames, --ignore drops. Frames are bytes
[H,W,3] of the size that the bundle takes. An instruction is sent as text
("prompt", "task") where the bundle has its tokenizer or --instructions names
one, or as the policy's token ids, once per connection."""
EPILOG = """examples:
  vlacompile serve light.vlab
  vlacompile serve policy.vlab --noise normal \\
    --map observation/image=observation.images.base
  vlacompile serve policy.vlab --protocol lerobot --http-port 9100
  vlacompile serve light.vlab --host 0.0.0.0 --api-key-file key \\
    --tls-cert cert.pem --tls-key key.pem

in Python, with openpi's client:
  from openpi_client.websocket_client_policy import WebsocketClientPolicy
  policy = WebsocketClientPolicy("127.0.0.1", 8000)   # api_key="..."
  actions = policy.infer(observation)["actions"]      # [h, action_dim]

Stop it with Ctrl-C or SIGTERM: what is being answered is answered first.

next: curl http://127.0.0.1:8000/healthz, then start the robot's program"""


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--protocol", choices=("openpi", "lerobot"), default="openpi", help="default: openpi")
    parser.add_argument("--host", default="127.0.0.1", metavar="H",
                        help="address to listen at (default: 127.0.0.1; others need --api-key-file or --no-auth)")
    parser.add_argument("--port", type=_port, metavar="P", help="default: 8000, lerobot 8080; 0: a free one")
    parser.add_argument("--http-port", type=_port, metavar="P", help="/healthz and /metrics beside lerobot")
    parser.add_argument("--map", action="append", default=[], type=_pair, metavar="KEY=SOURCE", dest="names",
                        help="the client's KEY is the bundle's SOURCE; may be repeated")
    parser.add_argument("--ignore", action="append", default=[], metavar="KEY", help="a client's key to drop")
    parser.add_argument("--instructions", metavar="CHECKPOINT",
                        help="LeRobot checkpoint directory whose tokenizer turns text into tokens (default: the "
                             "bundle's own)")
    parser.add_argument("--noise", choices=("client", "normal", "uniform"), default="client",
                        help="who draws what the policy samples from (default: the client sends it)")
    parser.add_argument("--seed", type=int, metavar="N", help="of that; every client then draws the same numbers")
    parser.add_argument("--threads", type=thread_count, default=0, metavar="N",
                        help="threads of the engine (default: 0, its own choice)")
    parser.add_argument("--backbone", metavar="NAME", help="of a bundle with several (default: the first one)")
    parser.add_argument("--uncalibrated", action="store_true", help=UNCALIBRATED)
    parser.add_argument("--queue", type=positive, default=8, metavar="N",
                        help="requests that may wait; one more is refused as busy (default: 8)")
    parser.add_argument("--clients", type=positive, default=16, metavar="N", help="connected at once (default: 16)")
    parser.add_argument("--max-message", type=positive, metavar="BYTES",
                        help="largest observation (default: what the bundle's inputs need; lerobot: 64 MiB)")
    parser.add_argument("--idle", type=positive, default=300, metavar="S",
                        help="seconds without a message until a client is disconnected (default: 300)")
    parser.add_argument("--grace", type=positive, default=10, metavar="S",
                        help="seconds that ending may take (default: 10)")
    parser.add_argument("--fps", type=positive, default=30, metavar="HZ",
                        help="lerobot: rate of the actions' time stamps (default: 30)")
    parser.add_argument("--api-key-file", metavar="FILE", help="clients must send the key that is in FILE")
    parser.add_argument("--no-auth", action="store_true", help="no key on an address that others reach")
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM certificate (chain)")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key")


def run(args, terminal: Terminal) -> None:
    from vlacompile.serve.access import decide_access
    from vlacompile.serve.server import Ready, Settings, require_packages, serve

    require_packages(args.protocol)
    access = decide_access(args.host, args.api_key_file, args.no_auth, args.tls_cert, args.tls_key)
    with terminal.phases() as phases:
        phases("open the bundle")
        from vlacompile.serve.observations import Intake
        from vlacompile.serve.policy_host import PolicyHost

        host = PolicyHost(args.bundle, threads=args.threads, queue_length=args.queue, noise=args.noise, seed=args.seed,
                          backbone=args.backbone, uncalibrated=args.uncalibrated)
        intake = Intake(host.plan, dict(args.names), args.ignore, _instructions(args, host))
    settings = Settings(args.protocol, args.host, args.port, args.http_port, args.max_message, args.clients, args.idle,
                        args.grace, args.fps)

    def ready(at: Ready) -> None:
        document = {"policy": host.plan.name, "protocol": args.protocol, "url": at.url, "http_url": at.http_url}
        terminal.now(document, lambda console: console.print(
            f"serving {host.plan.name} at {at.url}" + (f", {at.http_url}/healthz and /metrics" if at.http_url else ""),
            soft_wrap=True))

    ended = serve(host, intake, access, settings, ready)
    terminal.err.print("ended" if ended else f"ended after {args.grace} s; what was not answered was cut off")


def _instructions(args, host):
    if args.instructions is None:
        from vlacompile.serve.tokenized_texts import own_instructions

        return own_instructions(host.bundle)
    from vlacompile.frontends.lerobot.instructions import read_instructions

    return read_instructions(args.instructions, host.inputs)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'"{text}" is no port (0 to 65535)')
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    key, equals, source = text.partition("=")
    if not (key and equals and source):
        raise argparse.ArgumentTypeError(f'"{text}" is not KEY=SOURCE')
    return key, source
