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
    Frontend("zoo", "zoo:NAME, a system of the survey with random weights: `vlacompile zoo` lists them"),
    Frontend("onnx", "a policy.onnx with policy.sources.toml beside it (opset 17 to 21)"),
    Frontend("lerobot", "a LeRobot pretrained_model directory: act, diffusion, groot (N1.7), multi_task_dit, pi0, "
             "pi05, smolvla, vqbet; what else LeRobot ships or a plugin registers, as far as it can be traced",
             "lerobot061"),
    Frontend("lerobot 0.4", "the same, and groot (N1.5), which later versions dropped", "lerobot"),
    Frontend("openpi", "an openpi checkpoint in PyTorch: model.safetensors and assets/; pi0, pi05"),
    Frontend("openvla", "an OpenVLA or OpenVLA-OFT directory, LoRA merged; heads and FiLM beside it"),
    Frontend("evo1", "a directory of Evo-1's authors: DeepSpeed's or accelerate's file, norm_stats.json"),
    Frontend("xvla", "a directory of X-VLA's authors", "lerobot061"),
    Frontend("groot", "a directory of NVIDIA's Isaac-GR00T: N1.6, N1.7", "lerobot061"),
    Frontend("groot n1.5", "the same: N1.5", "lerobot"),
    Frontend("huggingface", "a transformers save_pretrained directory: pi0, or a vision backbone", "huggingface"),
    Frontend("backbones", "in a factory: SigLIP, CLIP, DINOv2, SmolVLM, Llama, Gemma, Qwen, ...", "huggingface"),
)
