"""OpenVLA-OFT's files beside the language model: action head, projector of the state, of noisy actions, and the vision
transformers with FiLM. They are PyTorch's own files, of which only tensors are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.openvla.heads import ResidualMlp, TwoLayers
from vlacompile.frontends.openvla.model import VISION
from vlacompile.frontends.tensor_files import TensorFiles, torch_file, weights_in
from vlart.errors import SourceError

KINDS = {"head": "action_head", "proprio": "proprio_projector", "noisy": "noisy_action_projector",
         "vision": "vision_backbone"}
PREFIXES = ("model.", "noise_predictor.mlp_resnet.")  # of the regression head, of the diffusion head
_ALPHA = 16  # of LoRA, or its rank if that is less (vla-scripts/finetune.py)
_LORA = re.compile(r"(.+)\.lora_A\.default\.weight")


@dataclass(frozen=True)
class Components:
    """Each None if the checkpoint has no such file."""

    head: TensorFiles | None = None
    proprio: TensorFiles | None = None
    noisy: TensorFiles | None = None
    vision: TensorFiles | None = None

    def any(self) -> bool:
        return any(getattr(self, k) is not None for k in KINDS)

    def names(self) -> str:
        return ", ".join(getattr(self, k).where.name for k in KINDS if getattr(self, k) is not None)

    def files(self, name: str) -> TensorFiles:
        found = getattr(self, name)
        assert found is not None
        return found

    def action_size(self) -> int | None:
        return None if self.head is None else self.head.shapes["fc2.weight"][0]

    def state_size(self) -> int | None:
        return None if self.proprio is None else self.proprio.shapes["fc1.weight"][1]

    def modules(self, width: int) -> dict[str, nn.Module]:
        """Of the sizes that their weights have; width: of the language model."""
        made: dict[str, nn.Module] = {}
        if self.head is not None:
            hidden, _ = self.head.shapes["fc1.weight"]
            actions = self.head.shapes["fc2.weight"][0]
            made["head"] = ResidualMlp(actions * width, hidden, actions)
        if self.proprio is not None:
            made["proprio"] = TwoLayers(self.proprio.shapes["fc1.weight"][1], width)
        if self.noisy is not None:
            made["noisy"] = TwoLayers(1, width)
        return made


def find_components(path: Path) -> Components:
    """Raises SourceError if there are two of a kind, or one that does not belong to another."""
    found: dict[str, TensorFiles] = {}
    for name, stem in KINDS.items():
        files = sorted(path.glob(f"{stem}--*checkpoint.pt"))
        if len(files) > 1:
            raise SourceError(f"there are {len(files)} files of {stem}", where=str(path),
                              why=", ".join(f.name for f in files) + " are of different steps of a training",
                              fix="keep the one that belongs to the weights")
        if files:
            found[name] = torch_file(files[0])
    if "head" in found:
        head = found["head"]
        by_noise = any(n.startswith(PREFIXES[1]) for n in head.shapes)
        if by_noise != ("noisy" in found):
            raise SourceError("the action head does not fit the other files", where=str(path),
                              why=f"it is {'a diffusion' if by_noise else 'a regression'} head, and "
                              f"{KINDS['noisy']}--*_checkpoint.pt is {'not there' if by_noise else 'there'}",
                              fix="copy the checkpoint again, completely")
        found["head"] = head.under(lambda n: n.removeprefix(PREFIXES[by_noise]))
    elif "noisy" in found:
        raise SourceError(f"{KINDS['head']}--*_checkpoint.pt is missing", where=str(path),
                          why=f"{found['noisy'].where.name} is the projector of a diffusion head",
                          fix="copy the checkpoint again, completely")
    for name, needed in (("head", ("fc1.weight", "fc2.weight")), ("proprio", ("fc1.weight",))):
        for weight in needed:
            if name in found and len(found[name].shapes.get(weight, ())) != 2:
                raise SourceError(f"{found[name].where.name} lacks {weight}", where=str(path),
                                  why="the sizes of its module are read from it",
                                  fix="copy the checkpoint again, completely")
    return Components(**found)


def joined_files(path: Path) -> TensorFiles:
    """All of a checkpoint directory. Raises SourceError."""
    return joined(weights_in(path), find_components(path))


def joined(files: TensorFiles, parts: Components) -> TensorFiles:
    """Those of the head and of the projector begin with "head." and "proprio."."""
    if parts.vision is not None:
        files = files.instead(film_weights(parts.vision), VISION)
    for name in ("head", "proprio"):
        if getattr(parts, name) is not None:
            own = f"{name}."
            files = files.instead(parts.files(name).under(lambda n, own=own: own + n), own)
    return files


def film_weights(files: TensorFiles) -> TensorFiles:
    """The vision transformers' weights under the names of a block with FiLM, what LoRA learnt added: this file is saved
    while the model still has its adapters, and is loaded over the merged weights."""
    names = {n: VISION + n.removeprefix(VISION).replace(".block.", ".").replace(".base_layer.", ".")
             for n in files.shapes if ".lora_" not in n}
    adapters = {m[1]: m[0] for n in files.shapes if (m := _LORA.fullmatch(n))}
    readers, shapes = {}, {}
    for name, ours in names.items():
        module = name.removesuffix(".base_layer.weight")
        readers[ours] = (lambda name=name: files.read(name)) if module not in adapters or module == name else (
            lambda name=name, module=module: _merged(files, name, module))
        shapes[ours] = files.shapes[name]
    return TensorFiles(files.where, readers, shapes)


def _merged(files: TensorFiles, name: str, module: str) -> torch.Tensor:
    down = files.read(f"{module}.lora_A.default.weight").float()
    up = files.read(f"{module}.lora_B.default.weight").float()
    rank = down.shape[0]
    return files.read(name).float() + min(_ALPHA, rank) / rank * (up @ down)
