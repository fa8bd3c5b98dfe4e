"""The arguments of `vlacompile serve` and `vlart-serve`. Imports nothing of the server: --help answers at once."""

from __future__ import annotations

import argparse

from vlart.arguments import (
    UNCALIBRATED,
    add_record,
    add_trust,
    not_negative,
    positive,
    positive_to,
    seconds,
    thread_count,
)

MOST_CLIENTS = 100_000
FPS = 30  # of LeRobot's data sets, unless --fps says another
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
[H,W,3] in the size that the bundle takes, or any with --resize. An instruction
is sent as text ("prompt", "task") if the bundle has its tokenizer or
--instructions gives one, or as the policy's token ids, once per connection.

An episode begins with a connection (openpi) or a call of Ready (lerobot), and
with an openpi message that has "reset": true; openpi's own reset() sends
nothing. Nothing of the last one is averaged, continued or looked back on.
Answers name their observation: "observation_id" of the message, or its number;
lerobot's actions have observation_timestamp and observation_timestep."""
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
    parser.add_argument("--resize", metavar="METHOD",
                        help="resize camera frames to the policy's size: bilinear, bicubic, nearest or nearest-exact, "
                             "as torchvision does it; with -pad the proportions stay and the rest is black (default: "
                             "frames of another size are refused)")
    parser.add_argument("--noise", choices=("client", "normal", "uniform"), default="client",
                        help="initial noise of a sampling policy: sent by the client, or drawn here (default: client)")
    parser.add_argument("--seed", type=not_negative, metavar="N",
                        help="random seed of --noise; every client then gets the same sequence")
    parser.add_argument("--threads", type=thread_count, default=0, metavar="N",
                        help="threads of the inference engine (default: 0, its own choice)")
    parser.add_argument("--backbone", metavar="NAME",
                        help="which backbone to use, if there are several (default: the first)")
    parser.add_argument("--uncalibrated", action="store_true", help=UNCALIBRATED)
    add_trust(parser)
    add_record(parser)
    parser.add_argument("--sessions", type=positive, default=1, metavar="N",
                        help="sessions of the policy, which share its weights; robots are spread over them (default: "
                             "1; one per robot keeps every instruction computed)")
    parser.add_argument("--clients", type=positive_to(MOST_CLIENTS), default=16, metavar="N",
                        help="clients connected at a time (default: 16)")
    parser.add_argument("--max-message", type=positive, metavar="BYTES",
                        help="largest message accepted (default: what the bundle's inputs need; lerobot: 64 MiB)")
    parser.add_argument("--idle", type=seconds, default=300, metavar="S",
                        help="disconnect a client after S seconds without a message (default: 300)")
    parser.add_argument("--grace", type=seconds, default=10, metavar="S",
                        help="seconds that a shutdown may take (default: 10)")
    parser.add_argument("--fps", type=positive, metavar="HZ",
                        help="with lerobot: rate of the actions' timestamps (default: 30)")
    parser.add_argument("--api-key-file", metavar="FILE", help="clients must send the key stored in FILE")
    parser.add_argument("--no-auth", action="store_true",
                        help="require no key on an address that other machines can reach")
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM certificate (chain)")
    parser.add_argument("--tls-key", metavar="FILE", help="private key of --tls-cert, PEM")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'"{text}" is not a port (0 to 65535)')
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    key, equals, source = text.partition("=")
    if not (key and equals and source):
        raise argparse.ArgumentTypeError(f'"{text}" is not KEY=SOURCE')
    return key, source
