"""`vlacompile serve BUNDLE`."""

from __future__ import annotations

from vlacompile.cli.terminal import Terminal
from vlart.serve.arguments import DESCRIPTION, add_arguments

SUMMARY = "serve a bundle to clients of openpi or LeRobot"
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

__all__ = ["DESCRIPTION", "EPILOG", "SUMMARY", "add_arguments", "run"]


def run(args, terminal: Terminal) -> None:
    from vlart.serve.command import listen, open_bundle

    with terminal.phases() as phases:
        served = open_bundle(args, phases, _read_instructions)
    ended = listen(served, lambda document, line: terminal.now(
        document, lambda console: console.print(line, soft_wrap=True)))
    terminal.err.print(ended)


def _read_instructions(checkpoint: str, host):
    from vlacompile.frontends.lerobot.instructions import read_instructions

    return read_instructions(checkpoint, host.inputs)
