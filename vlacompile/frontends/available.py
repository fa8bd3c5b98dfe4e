"""The kinds of SOURCE, and whether what reads each is installed: `vlacompile frontends`."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.frontends.environments import ENVIRONMENTS


@dataclass(frozen=True)
class Frontend:
    """One kind of SOURCE. environment: name of the Python environment that it needs, or None."""

    name: str
    reads: str
    environment: str | None = None

    def state(self) -> str:
        if self.environment is None:
            return "ready"
        environment = ENVIRONMENTS[self.environment]
        return "ready" if environment.is_here() or environment.is_installed() else f"needs --install {environment.name}"


FRONTENDS = (
    Frontend("module", "package.module:factory that returns a vlacompile.Policy"),
    Frontend("onnx", "a policy.onnx with policy.sources.toml beside it (opset 17 to 21)"),
    Frontend("lerobot", "a LeRobot pretrained_model directory: act, diffusion, groot, pi0, pi05, smolvla, vqbet",
             "lerobot"),
    Frontend("huggingface", "a transformers save_pretrained directory: pi0, or a vision backbone", "huggingface"),
    Frontend("backbones", "in a factory: SigLIP, CLIP, DINOv2, SmolVLM, Llama, Gemma, Qwen, ...", "huggingface"),
)
