"""`vlacompile serve BUNDLE`."""

from __future__ import annotations

import argparse

from vlacompile.cli.arguments import UNCALIBRATED, positive, thread_count
from vlacompile.cli.terminal import Terminal

SUMMARY = "serve a bundle to clients of openpi or LeRobot"
DESCRIPTION = """Serve a bundle over a protocol that robot programs already speak: their clients
need no change. Every message is checked against the bundle's inputs before the
policy sees it; a bad one is refused with what/where/why/fix.

protocols:
  openpi    openpi-client's WebsocketClientPolicy: MessagePack over a websocket.
            GET /healthz and /metrics (Prometheus) are on the same port.
  lerobot   LeRobot 0.4.4's asynchronous inference (robot_client.py): gRPC. Its
            pickles are parsed as data; nothing in them is imported or called.
            /healthz and /metrics need --http-port.

Clients use the bundle's input names (vlacompile inspect BUNDLE), with "/" for
"." if they like; --map renames a key, --ignore drops one. Frames are uint8
[H,W,3] in the size that the bundle takes. An instruction is sent as text
("prompt", "task") if the bundle has its tokenizer or --instructions gives one,
or as the policy's token ids, once per connection."""
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

Stop it with Ctrl-C or SIGTERM: requests in progress are answered first.

next: curl http://127.0.0.1:8000/healthz, then start the robot's program"""


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--protocol", choices=("openpi", "lerobot"), default="openpi", help="default: openpi")
    parser.add_argument("--host", default="127.0.0.1", metavar="H",
                        help="address to listen on (default: 127.0.0.1; others need --api-key-file or --no-auth)")
    parser.add_argument("--port", type=_port, metavar="P", help="default: 8000, lerobot 8080; 0: any free port")
    parser.add_argument("--http-port", type=_port, metavar="P", help="with lerobot: port for /healthz and /metrics")
    parser.add_argument("--map", action="append", default=[], type=_pair, metavar="KEY=SOURCE", dest="names",
                        help="map the client's KEY to the bundle's input SOURCE; may be repeated")
    parser.add_argument("--ignore", action="append", default=[], metavar="KEY",
                        help="drop this key of the client's messages; may be repeated")
    parser.add_argument("--instructions", metavar="CHECKPOINT",
                        help="LeRobot checkpoint directory whose tokenizer encodes instructions (default: the "
                             "bundle's tokenizer)")
    parser.add_argument("--noise", choices=("client", "normal", "uniform"), default="client",
                        help="initial noise of a sampling policy: sent by the client, or drawn here (default: client)")
    parser.add_argument("--seed", type=int, metavar="N",
                        help="random seed of --noise; every client then gets the same sequence")
    parser.add_argument("--threads", type=thread_count, default=0, metavar="N",
                        help="threads of the inference engine (default: 0, its own choice)")
    parser.add_argument("--backbone", metavar="NAME",
                        help="which backbone to use, if there are several (default: the first)")
    parser.add_argument("--uncalibrated", action="store_true", help=UNCALIBRATED)
    parser.add_argument("--queue", type=positive, default=8, metavar="N",
                        help="requests that may wait; further ones are refused as busy (default: 8)")
    parser.add_argument("--clients", type=positive, default=16, metavar="N",
                        help="clients connected at a time (default: 16)")
    parser.add_argument("--max-message", type=positive, metavar="BYTES",
                        help="largest message accepted (default: what the bundle's inputs need; lerobot: 64 MiB)")
    parser.add_argument("--idle", type=positive, default=300, metavar="S",
                        help="disconnect a client after S seconds without a message (default: 300)")
    parser.add_argument("--grace", type=positive, default=10, metavar="S",
                        help="seconds that a shutdown may take (default: 10)")
    parser.add_argument("--fps", type=positive, default=30, metavar="HZ",
                        help="with lerobot: rate of the actions' timestamps (default: 30)")
    parser.add_argument("--api-key-file", metavar="FILE", help="clients must send the key stored in FILE")
    parser.add_argument("--no-auth", action="store_true",
                        help="require no key on an address that other machines can reach")
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM certificate (chain)")
    parser.add_argument("--tls-key", metavar="FILE", help="private key of --tls-cert, PEM")


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
    terminal.err.print("stopped" if ended else f"stopped after {args.grace} s; requests still in progress were dropped")


def _instructions(args, host):
    if args.instructions is None:
        from vlacompile.serve.tokenized_texts import own_instructions

        return own_instructions(host.bundle)
    from vlacompile.frontends.lerobot.instructions import read_instructions

    return read_instructions(args.instructions, host.inputs)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'"{text}" is not a port (0 to 65535)')
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    key, equals, source = text.partition("=")
    if not (key and equals and source):
        raise argparse.ArgumentTypeError(f'"{text}" is not KEY=SOURCE')
    return key, source
