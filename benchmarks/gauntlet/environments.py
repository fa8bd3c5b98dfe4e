"""The Python environments that originals run in: exact versions, beside the compiler's own PyTorch.

    python -m benchmarks.gauntlet.environments     creates those that are missing

Two, since the repositories pin versions of transformers that exclude each other.
"""

from __future__ import annotations

from vlacompile.frontends.environments import ENVIRONMENTS as OF_FRONTENDS
from vlacompile.frontends.environments import Environment

SHARED = (
    "torchvision==0.28.0", "pillow==12.0.0", "einops==0.8.2", "einops-exts==0.0.4", "flamingo-pytorch==0.1.2",
    "openai-clip==1.0.1", "diffusers==0.35.2", "importlib_metadata==8.7.0", "zipp==3.23.0", "huggingface-hub==0.35.3",
    "hf-xet==1.8.0", "safetensors==0.8.0", "requests==2.32.5", "urllib3==2.5.0", "certifi==2025.10.5",
    "charset-normalizer==3.4.4", "idna==3.11", "PyYAML==6.0.3", "regex==2025.11.3", "tqdm==4.67.1", "packaging==25.0")

ENVIRONMENTS = {e.name: e for e in (
    Environment("gauntlet", "transformers", "4.53.2", "transformers 4.53, diffusers and timm",
                (*SHARED, "transformers==4.53.2", "tokenizers==0.21.4", "timm==1.0.3", "lerobot==0.4.4")),
    Environment("gauntlet-prismatic", "transformers", "4.40.1", "transformers 4.40 and timm 0.9, as OpenVLA pins them",
                (*SHARED, "transformers==4.40.1", "tokenizers==0.19.1", "timm==0.9.10")))}


def named(name: str) -> Environment | None:
    """One of these, or a frontend's; None, the current one, for ""."""
    return (ENVIRONMENTS | OF_FRONTENDS)[name] if name else None


def install() -> None:
    for environment in ENVIRONMENTS.values():
        if not environment.is_installed():
            environment.install(progress=lambda phase: print(phase, flush=True))


if __name__ == "__main__":
    install()
