"""Engines for the evaluation: a policy that gets an instruction and then a sequence of observations.

The last three go through a server: `vlacompile serve`, with the unmodified client of openpi or of LeRobot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

import vlacompile as vc
from examples.libero_goal.encoders import tokenize
from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS, build_module
from examples.libero_goal.scene import CLOSE, OPEN

EXECUTE = 10  # h: actions executed per replan


def command(predicted: np.ndarray) -> np.ndarray:
    """The command for a predicted action [7]: only the sign of the gripper counts."""
    return np.array([*predicted[:6], CLOSE if predicted[6] > 0 else OPEN], float)


class Engine(Protocol):
    def reset(self, text: str) -> None:
        """A new episode with this instruction."""

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        """{camera: uint8 [128,128,3]}, f32 [9] -> actions f32 [50,7]."""


class TorchEngine:
    """The original module, eager, one thread."""

    def __init__(self, member: str):
        torch.set_num_threads(1)
        self.member, self.module = member, build_module(member)
        self._words: dict[str, torch.Tensor] = {}

    def reset(self, text: str) -> None:
        ids, mask = tokenize(self.member, text)
        self._words = {TOKENS: ids, MASK: mask}

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        frames = {IMAGES[c]: torch.from_numpy(image)[None] for c, image in images.items()}
        with torch.no_grad():
            return self.module(**self._words, **frames, **{STATE: torch.from_numpy(state)[None]})["action"][0].numpy()


class BundleEngine:
    """A compiled bundle through libvlart, one thread: the path of the C program."""

    def __init__(self, member: str, path: Path, stand_in: bool = False):
        self.member, self.session = member, vc.Session(path, threads=1, stand_in=stand_in)

    def reset(self, text: str) -> None:
        ids, mask = tokenize(self.member, text)
        self.session.write(TOKENS, ids)
        self.session.write(MASK, mask)

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        for camera, image in images.items():
            self.session.write(IMAGES[camera], image[None])
        self.session.write(STATE, state[None])
        self.session.step()
        return self.session.read("action")[0]


class EmulatedEngine:
    """The stages of a bundle as the compiler means them to be computed, in PyTorch: what is in fp16 is rounded to it,
    sums are kept in f32. source, target, recipe: as vlacompile.build's; nothing is emitted."""

    def __init__(self, member: str, source: str, target: str, recipe: str):
        from vlacompile.compiler.staging.run_stages import StageRunner
        from vlacompile.phases.phase import Phase, silent
        from vlacompile.phases.read_inputs import read_inputs
        from vlacompile.pipeline import until

        inputs = read_inputs(source, target, recipe, progress=silent)
        precise = until(Phase.CHOOSE_PRECISION, inputs)
        self.member, self.runner = member, StageRunner(precise.staged)
        self.sha256 = hashlib.sha256(precise.text().encode()).hexdigest()
        self._kept: dict[str, torch.Tensor] = {}
        self._spoken = [s for s in precise.staged.stages if set(s.sources) <= {TOKENS, MASK}]

    def reset(self, text: str) -> None:
        ids, mask = tokenize(self.member, text)
        self._words, self._kept = {TOKENS: ids, MASK: mask}, {}

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        frames = {IMAGES[c]: torch.from_numpy(image)[None] for c, image in images.items()}
        values = self.runner.run({**self._words, **frames, STATE: torch.from_numpy(state)[None]}, known=self._kept)
        self._kept = {p.value: values[p.value] for s in self._spoken for p in s.outputs}
        return values["action"][0].float().numpy()


class OpenpiEngine:
    """openpi's own client, unchanged, connected to `vlacompile serve`; the instruction is sent as text. url:
    ws://HOST:PORT."""

    def __init__(self, url: str):
        from openpi_client.websocket_client_policy import WebsocketClientPolicy

        self.client, self.text = WebsocketClientPolicy(url), ""

    @property
    def sha256(self) -> str:
        """Hash of the served bundle."""
        return self.client.get_server_metadata()["bundle"]

    def reset(self, text: str) -> None:
        self.text = text

    def close(self) -> None:
        self.client._ws.close()  # the client has no close()

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        frames = {IMAGES[camera]: image for camera, image in images.items()}
        return self.client.infer({**frames, STATE: state, "prompt": self.text})["actions"]


class LerobotEngine:
    """LeRobot's own asynchronous client (lerobot_robot.py), unchanged, in its environment: a process of its own,
    because LeRobot's packages conflict with the simulator's. address: HOST:PORT of a `vlacompile serve`."""

    def __init__(self, address: str):
        from vlacompile.frontends.environments import ENVIRONMENTS

        root = Path(__file__).resolve().parents[2]
        python = ENVIRONMENTS["lerobot"].python
        if not python.is_file():
            raise SystemExit("LeRobot's client has an environment of its own: " + ENVIRONMENTS["lerobot"].advice())
        self.folder = tempfile.TemporaryDirectory()  # LeRobot logs to ./logs
        program = (f"import sys; sys.path.insert(0, {str(root)!r})\n"
                   "from examples.libero_goal import lerobot_robot\nlerobot_robot.main()")
        self.said = Path(self.folder.name) / "said"
        with self.said.open("wb") as said:
            self.process = subprocess.Popen([python, "-W", "ignore", "-c", program, address], cwd=self.folder.name,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        self.text = ""

    def reset(self, text: str) -> None:
        self.text = text

    def act(self, images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        from examples.libero_goal.lerobot_robot import receive, send

        try:
            send(self.process.stdin, {**images, "state": state, "task": np.array(self.text)})
            return receive(self.process.stdout)["actions"]
        except (EOFError, BrokenPipeError) as error:
            words = self.said.read_text(errors="replace").strip().splitlines()
            raise SystemExit(f"LeRobot's client ended: {words[-1] if words else 'no message'}") from error

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        self.folder.cleanup()


@contextlib.contextmanager
def serving(bundle: Path, protocol: str) -> Iterator[str]:
    """The address of `vlacompile serve` on a free port, until the block ends."""
    process = subprocess.Popen([sys.executable, "-m", "vlacompile.cli.main", "serve", bundle, "--protocol", protocol,
                                "--port", "0", "--threads", "1", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start (exit code {process.wait()})")
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        process.communicate(timeout=30)


KINDS = {"openpi": OpenpiEngine, "lerobot": LerobotEngine}


@contextlib.contextmanager
def open_engine(member: str, engine: str) -> Iterator[Engine]:
    """engine: "torch", the path of a bundle, "ws://HOST:PORT" of a server, or "openpi:BUNDLE" and "lerobot:BUNDLE": a
    new server, and that client."""
    kind, _, rest = engine.partition(":")
    if engine == "torch":
        yield TorchEngine(member)
    elif kind in ("ws", "wss"):
        yield OpenpiEngine(engine)
    elif kind in KINDS:
        with serving(Path(rest), kind) as address, contextlib.closing(KINDS[kind](address)) as client:
            yield client
    else:
        yield BundleEngine(member, Path(engine))
