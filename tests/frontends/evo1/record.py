"""Records what the authors' code does with Evo-1 checkpoints: recorded.json.

python -m tests.frontends.evo1.record CHECKOUT INTERNVL PACKAGES

CHECKOUT: of MINT-SJTU/Evo-1 (recorded: 1bf31c4). INTERNVL: of OpenGVLab/InternVL (recorded: 2410d1d), whose classes the
Hub's copies are of. PACKAGES: a folder with transformers 4.51.3 and tokenizers 0.21.4. Run in the environment lerobot,
which has the rest. The authors' server computes in bf16 on a GPU, with FlashAttention where it is installed: here all
is in fp32, and of FlashAttention there is the one function that transformers calls.
"""

from __future__ import annotations

import json
import sys
from contextlib import chdir
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch

from tests.frontends.evo1 import cases
from tests.samples.recorded_weights import weight
from tests.samples.shapes import compact
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed

RECORDED = Path(__file__).with_name("recorded.json")
NOT_CALLED = ("accelerate", "apex", "av", "cv2", "decord", "deepspeed", "fvcore", "pandas", "peft", "pyarrow",
              "swanlab", "timm", "torchcodec", "wandb", "websockets")


def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None, causal=False, **rest):
    """flash_attn_varlen_func: [tokens, heads, d], attention within runs of tokens."""
    assert causal
    out, groups = torch.empty_like(q), q.shape[1] // k.shape[1]
    for first, end in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
        a, b, c = (t[first:end].transpose(0, 1)[None] for t in (q, k, v))
        b, c = (t.repeat_interleave(groups, 1) for t in (b, c))
        out[first:end] = torch.nn.functional.scaled_dot_product_attention(
            a, b, c, is_causal=True, scale=softmax_scale)[0].transpose(0, 1)
    return out


def pad(x, indices, batch, length):
    out = torch.zeros((batch * length, *x.shape[1:]), dtype=x.dtype)
    out[indices] = x
    return out.view(batch, length, *x.shape[1:])


def vlm_of(sizes: dict, attention: str):
    """In place of AutoModel.from_pretrained: random weights."""
    from internvl.model.internvl_chat.configuration_internvl_chat import InternVLChatConfig
    from internvl.model.internvl_chat.modeling_internvl_chat import InternVLChatModel
    from transformers import modeling_flash_attention_utils as flash

    def make(*args, **kwargs):
        config = InternVLChatConfig(**sizes)
        config.llm_config._attn_implementation_autoset = True  # else transformers looks for a GPU
        config.llm_config._attn_implementation = {"flash": "flash_attention_2"}.get(attention, attention)
        if attention == "flash":
            flash.flash_attn_varlen_func, flash.pad_input, flash._flash_supports_window_size = varlen, pad, False
            flash.index_first_axis = lambda x, indices: x[indices]
            flash.flash_241 = flash.fa_peft_integration_check = None
            flash.fa_peft_integration_check = lambda q, k, v, dtype: (q, k, v)
        return InternVLChatModel(config)

    return make


def model_of(settings: dict, sizes: dict, attention: str):
    from config import EvoConfig
    from model.internvl3 import internvl3_embedder as embedder
    from scripts.Evo1 import EVO1
    from transformers import PreTrainedTokenizerFast

    with mock.patch.object(embedder.AutoModel, "from_pretrained", vlm_of(sizes, attention)), \
            mock.patch.object(embedder.AutoTokenizer, "from_pretrained",
                              lambda name, **kwargs: PreTrainedTokenizerFast.from_pretrained(name)):
        return EVO1(EvoConfig.from_dict(settings)).eval()


def record(folder: Path) -> dict:
    import scripts.Evo1_server as server

    out: dict = {"actions": {}}
    for case, about in cases.CASES.items():
        settings = cases.SIZES | {"vlm_name": str(folder / "vlm"), "num_inference_timesteps": cases.STEPS}
        model = model_of(settings, cases.VLM, about["attention"])
        for name, parameter in model.named_parameters():
            parameter.data = weight(name, tuple(parameter.shape))
        out["config"] = model.config.to_dict() | {"vlm_name": "OpenGVLab/InternVL3-1B"}
        out["weights"] = {n: list(t.shape) for n, t in model.state_dict().items()}
        normal = server.Normalizer(cases.statistics(), about["normalization_type"])
        out["actions"][case] = [asked(model, normal, seed, about["images"]) for seed in range(cases.SEEDS)]
    with torch.device("meta"), mock.patch.object(torch.Tensor, "to", lambda self, *a, **k: self), \
            mock.patch.object(torch, "linspace", partial(torch.linspace, device="cpu")):
        real = model_of(cases.REAL_SIZES | {"vlm_name": str(folder / "vlm")}, cases.REAL, "eager")
    return out | {"real": compact({n: t.shape for n, t in real.state_dict().items()})}


def asked(model, normal, seed: int, images: int) -> list[list[float]]:
    """As infer_from_json_dict does, with frames of the model's size: its client sends black ones for cameras that are
    not there."""
    frames, state = cases.observation(seed, images)
    frames += [np.zeros_like(frames[0])] * (3 - images)
    ready = [torch.from_numpy(f).permute(2, 0, 1).float() / 255 for f in frames]
    numbers = normal.normalize_state(torch.from_numpy(state)[None], cases.ARM, cases.DATASET)
    mask = torch.tensor([[1] * cases.ACTION + [0] * (24 - cases.ACTION)])
    torch.manual_seed(1)  # the noise is the first draw
    action = model.run_inference(images=ready, image_mask=torch.tensor([1] * images + [0] * (3 - images)),
                                 prompt=cases.INSTRUCTION, state_input=numbers, action_mask=mask)
    chunk = normal.denormalize_action(action.reshape(1, -1, 24)[0], cases.ARM, cases.DATASET)
    return [[float(f"{x:.7g}") for x in row[: cases.ACTION].tolist()] for row in chunk[:: cases.EVERY]]


def main(checkout: str, internvl: str, packages: str) -> None:
    sys.path[:0] = [str(Path(checkout) / "Evo_1"), str(Path(internvl) / "internvl_chat"), packages]
    declare_torchvision_ops()
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401 (before the stubs)

    with TemporaryDirectory() as name, chdir(name), stubbed(NOT_CALLED), \
            mock.patch.object(torch, "bfloat16", torch.float32), torch.inference_mode():
        cases.write_vlm(Path(name) / "vlm")
        found = record(Path(name))
    RECORDED.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
