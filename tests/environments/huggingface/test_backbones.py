"""Transformers models as parts of a policy: each type as a tiny random checkpoint, in a late-fusion policy, through
libvlart against the same module in PyTorch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.hub_server import asked
from vlacompile.cli.main import main
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.huggingface.backbones import TEXT, VISION, text_backbone, vision_backbone
from vlacompile.frontends.huggingface.factory import factory
from vlacompile.frontends.huggingface.images import ImageSettings, Preparation, image_settings
from vlacompile.frontends.quiet import quiet
from vlacompile.phases.load_policy import load_policy
from vlacompile.pipeline import plan
from vlart.errors import SourceError
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["huggingface"].is_here(),
                                reason="needs the environment huggingface: make test-huggingface")
FRAME, LENGTH, WIDTH = (24, 48), 12, 32
SEE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
       "patch_size": 8}
READ = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128,
        "num_key_value_heads": 2, "max_position_embeddings": 64}
ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
           "vocab_size": 128, "max_position_embeddings": 16, "projection_size": 32}
IMAGES = {"do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True,
          "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
CROPPED = IMAGES | {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
SPLIT = IMAGES | {"size": {"longest_edge": 64}, "do_image_splitting": True}
# saved as -> (class, configuration class, its arguments, image processor)
VLM = {"vision_config": SEE, "text_config": READ | {"model_type": "llama", "pad_token_id": 0}, "scale_factor": 2,
       "image_token_id": 127}
MODELS = {
    "siglip": ("SiglipModel", "SiglipConfig", {"vision_config": SEE, "text_config": ENCODER}, IMAGES),
    "siglip_vision_model": ("SiglipVisionModel", "SiglipVisionConfig", SEE, IMAGES),
    "clip": ("CLIPModel", "CLIPConfig", {"vision_config": SEE, "text_config": ENCODER}, CROPPED),
    "clip_vision_model": ("CLIPVisionModel", "CLIPVisionConfig", SEE, CROPPED),
    "dinov2": ("Dinov2Model", "Dinov2Config", SEE, CROPPED),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", SEE, CROPPED),
    "smolvlm": ("SmolVLMForConditionalGeneration", "SmolVLMConfig", VLM, SPLIT),
    "idefics3": ("Idefics3ForConditionalGeneration", "Idefics3Config", VLM, SPLIT),
    "llama": ("LlamaForCausalLM", "LlamaConfig", READ, None),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", READ | {"head_dim": 8}, None),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", READ | {"head_dim": 8}, None),
    "gemma3_text": ("Gemma3ForCausalLM", "Gemma3TextConfig", READ | {"head_dim": 8, "sliding_window": 4}, None),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", READ, None),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", READ | {"head_dim": 8}, None),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", READ | {"pad_token_id": 0}, None),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(model type) -> its directory, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("backbones")

    def write(kind: str) -> Path:
        path = folder / kind
        if not path.exists():
            model, config, settings, images = MODELS[kind]
            with quiet():
                import transformers

                torch.manual_seed(0)
                made = getattr(transformers, model)(getattr(transformers, config)(**settings)).eval()
                for p in made.parameters():  # so that no part of it does nothing
                    if p.dim() < 2 or float(p.detach().std()) == 0:
                        nn.init.normal_(p, 0.5, 0.2)
                made.save_pretrained(path)
            if images is not None:
                (path / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
        return path

    return write


class LateFusion(nn.Module):
    """Two cameras, an instruction and the joint state into one chunk of actions."""

    def __init__(self, see: nn.Module, read: nn.Module):
        super().__init__()
        self.see, self.read = see, read
        self.image, self.text = nn.Linear(see.width, WIDTH), nn.Linear(read.width, WIDTH)
        self.state = nn.Linear(5, WIDTH)
        self.queries = nn.Parameter(torch.randn(1, 6, WIDTH))
        self.key, self.value, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 7)

    def forward(self, base, wrist, tokens, mask, state) -> dict[str, torch.Tensor]:
        text = self.text(self.read(tokens, mask))
        parts = [self.image(self.see(base)), self.image(self.see(wrist)), text, self.state(state)[:, None]]
        seen = torch.cat([mask if p is text else torch.ones(1, p.shape[1], dtype=torch.bool) for p in parts], 1)
        memory = torch.cat(parts, 1)
        x = nn.functional.scaled_dot_product_attention(self.queries[:, None], self.key(memory)[:, None],
                                                       self.value(memory)[:, None], seen[:, None, None])
        return {"action": self.head(x[:, 0])}


def inputs(frame: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    image = lambda: torch.randint(0, 256, (1, *frame, 3), dtype=torch.uint8, generator=draw)
    return {"base": image(), "wrist": image(), "tokens": torch.randint(0, 100, (1, LENGTH), generator=draw),
            "mask": torch.arange(LENGTH)[None] < 7 + seed, "state": torch.randn(1, 5, generator=draw)}


def policy_of(vision: Path, text: Path, frame=FRAME) -> vc.Policy:
    torch.manual_seed(1)
    model = LateFusion(vision_backbone(vision, frame), text_backbone(text)).eval()
    task, seen = vc.Source("task"), vc.Source("observation")
    return vc.Policy("mine", model, {"base": seen, "wrist": seen, "tokens": task, "mask": task, "state": seen},
                     inputs(frame, 0))


PAIRS = [("siglip_vision_model", "qwen3"), ("dinov2", "llama"), ("dinov2_with_registers", "gemma"),
         ("clip_vision_model", "qwen2"), ("siglip", "gemma3_text"), ("clip", "gemma2"), ("smolvlm", "smolvlm"),
         ("idefics3", "idefics3"), ("siglip", "siglip"), ("siglip_vision_model", "smollm3")]


def test_every_type_is_tried():
    assert {v for v, _ in PAIRS} == set(VISION) and {t for _, t in PAIRS} == set(TEXT)


@pytest.fixture(scope="module", params=PAIRS, ids="+".join)
def built(request, saved, tmp_path_factory):
    vision, text = (saved(kind) for kind in request.param)
    frame = (32, 32) if request.param[0] in ("smolvlm", "idefics3") else FRAME
    policy = policy_of(vision, text, frame)
    recipe = tmp_path_factory.mktemp("recipe") / "every-stage.toml"
    recipe.write_text('name = "every-stage"\ndescription = "none merged"\n[stages]\nmin_flops = 0\n', encoding="utf-8")
    return policy, frame, vc.build(policy, recipe=str(recipe), out=tmp_path_factory.mktemp("bundle") / "a.vlab")


def compiled(session: vc.Session, given: dict[str, torch.Tensor]) -> np.ndarray:
    for name, tensor in given.items():
        session.write(name, tensor)
    session.step()
    return session.read("action")


def test_actions_are_those_of_the_modules(built):
    policy, frame, bundle = built
    with vc.Session(bundle.path) as session:
        for seed in range(3):
            with torch.no_grad():
                want = policy.observe(**inputs(frame, seed))["action"].numpy()
            got = compiled(session, inputs(frame, seed))
            assert compare(got, want).within(tolerance("f32", "chunk").limit(want)), compare(got, want)


@pytest.mark.parametrize("changed", ["base", "tokens", "mask"])
def test_another_input_fails_the_gate(built, changed):
    policy, frame, bundle = built
    with torch.no_grad():
        want = policy.observe(**inputs(frame, 0))["action"].numpy()
    with vc.Session(bundle.path) as session:
        got = compiled(session, inputs(frame, 0) | {changed: inputs(frame, 1)[changed]})
    assert not compare(got, want).within(tolerance("f32", "chunk").limit(want))


def test_stages_and_what_an_unchanged_instruction_costs(built):
    _policy, frame, bundle = built
    names = {s.name.split(".")[0] if not s.name.startswith("vision") else s.name for s in bundle.plan.stages}
    assert {"language", "vision.base", "vision.wrist", "fusion"} <= names
    with vc.Session(bundle.path) as session:
        for seed in range(3):
            task = {n: t for n, t in inputs(frame, 0).items() if n in ("tokens", "mask")}
            compiled(session, inputs(frame, seed) | task)
        runs = session.stats().runs()
    assert all(n == (1 if name.startswith("language") else 3) for name, n in runs.items()
               if name.startswith(("language", "vision")))
    flops = {s.name: s.flops for s in bundle.plan.stages}
    fusion = sum(f for n, f in flops.items() if n.startswith("fusion"))
    assert flops["vision.base"] == flops["vision.wrist"] > 10 * fusion


@pytest.mark.parametrize("kind", sorted(set(TEXT)))
def test_text_is_what_transformers_computes(saved, kind):
    """Without padding and without a mask, with transformers' own default call."""
    from transformers import AutoModel

    with quiet():
        model = AutoModel.from_pretrained(saved(kind)).eval()
    model = getattr(model, TEXT[kind]) if TEXT[kind] else model
    tokens = inputs(FRAME, 0)["tokens"]
    seen = torch.arange(LENGTH)[None] < 7
    with torch.no_grad():
        want = model(input_ids=tokens[:, :7]).last_hidden_state
        got = text_backbone(saved(kind))(tokens, seen)[:, :7]
    if kind.startswith("siglip"):  # reads all positions both ways: there is no shorter text
        with torch.no_grad():
            want = model(input_ids=tokens).last_hidden_state
            got = text_backbone(saved(kind))(tokens, torch.ones_like(seen))
    assert compare(got.numpy(), want.numpy()).max_abs < 1e-5
    with torch.no_grad():
        other = text_backbone(saved(kind))(tokens.roll(1), seen)[:, :7]
    assert compare(other.numpy(), want[:, :7].numpy()).max_abs > 1e-3


# Preparation of pictures

def test_settings_are_those_of_the_file(saved):
    assert image_settings(saved("dinov2")) == ImageSettings(40, "bicubic", (32, 32), 1 / 255, (0.5, 0.4, 0.3),
                                                            (0.5, 0.6, 0.7))


def test_frames_in_the_models_own_size_are_only_scaled(saved):
    prepare = vision_backbone(saved("siglip_vision_model")).prepare
    frames = inputs((32, 32), 0)["base"]
    mean, std = (torch.tensor(IMAGES[k]).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
    assert torch.allclose(prepare(frames), (frames.permute(0, 3, 1, 2) / 255 - mean) / std, atol=1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("frame,size", [((480, 640), (224, 224)), ((48, 64), (96, 40)), ((30, 50), (30, 21))])
def test_resizing_is_pytorchs_antialiased_one(mode, frame, size):
    prepare = Preparation(ImageSettings(size, mode, None, 1.0, None, None), frame)
    frames = torch.randint(0, 256, (1, *frame, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = frames.permute(0, 3, 1, 2).float()
    want = nn.functional.interpolate(pixels, size, mode=mode, antialias=True).clamp(0, 255).round()
    difference = (prepare(frames) - want).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3  # what lies on half a grey level


# A lone backbone, and the policy that the error leads to

def test_a_lone_vision_backbone_is_an_encoder(saved, tmp_path):
    bundle = vc.build(saved("siglip_vision_model"), out=tmp_path / "see.vlab")
    frames = inputs((32, 32), 3)["base"]
    with torch.no_grad():
        want = vision_backbone(saved("siglip_vision_model"))(frames)[0].numpy()
    with vc.Session(bundle.path) as session:
        session.write("frame", frames)
        session.step()
        got = session.read("tokens")
    assert bundle.plan.action is None and got.shape == (16, 32)
    assert compare(got, want).within(tolerance("f32", "chunk").limit(want))


def test_backbones_by_name_on_the_hub(saved, tmp_path, monkeypatch):
    """Their files come as those of a checkpoint do; of a lone one also the weights, for a plan too."""
    frames = inputs((32, 32), 3)["base"]
    with asked(monkeypatch, tmp_path) as hub:
        for kind in ("siglip_vision_model", "qwen3"):
            hub.repository(f"towers/{kind}", {p.name: p.read_bytes() for p in saved(kind).iterdir()})
        assert torch.equal(vision_backbone("towers/siglip_vision_model")(frames),
                           vision_backbone(saved("siglip_vision_model"))(frames))
        assert text_backbone("towers/qwen3").width == text_backbone(saved("qwen3")).width
        assert load_policy("towers/siglip_vision_model").name == "siglip_vision_model"
        assert plan("towers/siglip_vision_model").policy == "siglip_vision_model"
        assert main(["plan", "towers/siglip_vision_model"]) == 0


def test_a_lone_text_backbone_is_no_policy(saved):
    with pytest.raises(SourceError) as error:
        load_policy(saved("qwen3"))
    assert "huggingface.factory" in error.value.fix and str(saved("qwen3")) in error.value.fix


def test_the_printed_factory_builds(saved, tmp_path, monkeypatch):
    command = [sys.executable, "-m", "vlacompile.frontends.huggingface.factory", saved("siglip"), saved("qwen3")]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert text == factory(str(saved("siglip")), str(saved("qwen3")))
    small = text.replace("FRAME = (480, 640)", "FRAME = (48, 64)")
    (tmp_path / "printed_policy.py").write_text(small, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["build", "printed_policy:make", "-o", "a.vlab"]) == 0
    assert "language" in {s.name.split(".")[0] for s in vc.load(tmp_path / "a.vlab").plan.stages}


# Every way to be wrong

def test_wrong_directories_are_refused(saved, tmp_path):
    for make, kind, what in ((vision_backbone, "qwen3", 'no vision_backbone for models of type "qwen3"'),
                             (text_backbone, "dinov2", 'no text_backbone for models of type "dinov2"')):
        with pytest.raises(SourceError) as error:
            make(saved(kind))
        assert (error.value.what == what and "known" in error.value.why) or "did you mean" in error.value.why
    with pytest.raises(SourceError, match="does not exist"):
        vision_backbone(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="frames of 24x48"):
        vision_backbone(saved("smolvlm"), FRAME)


def copy_of(path: Path, to: Path) -> Path:
    to.mkdir()
    for file in path.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_damaged_checkpoints_are_refused(saved, tmp_path):
    weights = "model.safetensors"
    damages = {
        "has no weights": lambda p: (p / weights).unlink(),
        "cannot load": lambda p: (p / weights).write_bytes((p / weights).read_bytes()[:2000]),
        "no image processor settings": lambda p: (p / "preprocessor_config.json").unlink(),
        "not covered": lambda p: (p / "preprocessor_config.json").write_text(json.dumps(IMAGES | {"resample": 1})),
        "weights are incomplete": lambda p: _drop_a_weight(p / weights),
    }
    for i, (what, damage) in enumerate(damages.items()):
        path = copy_of(saved("siglip_vision_model"), tmp_path / str(i))
        damage(path)
        with pytest.raises(SourceError) as error:
            vision_backbone(path)
        assert what in str(error.value) and error.value.fix and "\n" not in error.value.why, error.value


def _drop_a_weight(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors.pop(next(k for k in tensors if "layers.0" in k))
    save_file(tensors, path, metadata={"format": "pt"})


def test_settings_may_be_given(saved):
    given = dataclasses.replace(image_settings(saved("dinov2")), resize=(32, 32), crop=None)
    assert vision_backbone(saved("dinov2"), FRAME, given).prepare.size == (32, 32)


def test_the_hosts_part_is_the_tokenizer_of_the_directory(saved):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from vlacompile.frontends.huggingface.backbones import tokens_of

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "pick": 2, "the": 3, "cup": 4}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(saved("llama"))
    tokens, mask = tokens_of(saved("llama"), "pick the red cup", 6)
    assert tokens.tolist() == [[2, 3, 1, 4, 0, 0]] and mask.tolist() == [[True] * 4 + [False] * 2]
    with pytest.raises(SourceError, match="tokenizer cannot be used"):
        tokens_of(saved("dinov2"), "pick", 6)
