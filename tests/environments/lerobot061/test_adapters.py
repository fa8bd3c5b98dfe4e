"""LoRA adapters as LeRobot's training writes them, merged with the policy that they were trained on: against the
forward of peft's own layers, which adds the updates unmerged, and against the weights that peft merges."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot.checkpoints import sized, write
from tests.environments.lerobot.parity import compiled_actions, noise_for, observation, original_actions
from vlacompile.frontends import hub
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot import layer_patterns
from vlacompile.frontends.lerobot.adapter import base_of
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import load_original, open_checkpoint, read_policy
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
CASES = {  # what --peft.* and peft's own options make of it; no options: the layers that LeRobot chooses
    "smolvla": ("smolvla", {"num_steps": 3}, {"r": 4, "lora_alpha": 16}),
    "smolvla-ranks": ("smolvla", {"num_steps": 2}, {
        "r": 4, "use_rslora": True, "rank_pattern": {"state_proj": 2, "model.vlm_with_expert.lm_expert.*v_proj": 3},
        "alpha_pattern": {".*q_proj": 5},
        "target_modules": r"(.*lm_expert\..*\.(q|v)_proj|model\.state_proj|.*text_model\.embed_tokens)"}),
    "pi0": ("pi0", {"num_inference_steps": 3}, {"r": 2}),
    "act-layers": ("act", {}, {"r": 3, "target_modules": ["linear1", "linear2", "layer1.0.conv1", "latent_proj",
                                                          "encoder_latent_input_proj", "encoder_img_feat_input_proj"],
                               "modules_to_save": ["action_head"], "bias": "lora_only"}),
    "act-biases": ("act", {}, {"r": 3, "target_modules": ["linear1"], "bias": "all", "lora_bias": True}),
}


def train(kind: str, base: Path, folder: Path, options: dict, **settings) -> None:
    """What lerobot-train writes when only an adapter is trained: base, and the adapter of it in `folder`."""
    policy = write(kind, base, **settings)
    with lerobot_importable():
        from peft import LoraConfig

        policy.config.pretrained_path = base
        chosen = {**(policy._get_default_peft_targets() or {}), **options}
        adapted = policy.wrap_with_peft(peft_config=LoraConfig(**chosen))
        draw = torch.Generator().manual_seed(4)
        for weight in adapted.parameters():
            if weight.requires_grad:  # as after some steps: B is zero before
                weight.data += 0.05 * torch.randn(weight.shape, generator=draw)
        adapted.save_pretrained(folder)
        policy.config.save_pretrained(folder)
    for file in base.glob("policy_*processor*"):
        shutil.copy(file, folder / file.name)


def with_peft(folder: Path, adapted: bool = True) -> tuple[torch.nn.Module, object]:
    """(LeRobot's policy with the adapter in it, as its scripts load one; peft's model around it)"""
    with lerobot_importable():
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class
        from peft import PeftConfig, PeftModel

        config = PreTrainedConfig.from_pretrained(folder, local_files_only=True)
        config.device = "cpu"
        named = PeftConfig.from_pretrained(str(folder))
        policy = get_policy_class(config.type).from_pretrained(named.base_model_name_or_path, config=config,
                                                               local_files_only=True).float().eval()
        return policy, PeftModel.from_pretrained(policy, str(folder), config=named).eval() if adapted else None


@pytest.fixture(scope="module", params=variants(CASES, ["smolvla-ranks", "act-biases"]))
def trained(request, tmp_path_factory):
    kind, settings, options = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with sized(kind, real=False):
        train(kind, folder / "base", folder / "adapter", options, **settings)
        yield kind, folder / "adapter"


def test_the_merged_weights_are_pefts(trained):
    _, folder = trained
    checkpoint, family = open_checkpoint(folder)
    policy = read_policy(folder)
    assert policy.origin["adapter of"].startswith("model.safetensors with sha256 ")
    with lerobot_importable():
        base = base_of(checkpoint.adapter, checkpoint.type)
        ours = load_original(replace(checkpoint, base=base), family).state_dict()
    adapted = with_peft(folder)[1]
    before = {n: t.clone() for n, t in with_peft(folder, adapted=False)[0].state_dict().items()}
    want = adapted.merge_and_unload().state_dict()
    assert ours.keys() == want.keys()
    worst = {n: float((ours[n].double() - want[n].double()).abs().max()) for n in want}
    assert max(worst.values()) <= 1e-6, max(worst, key=worst.get)
    changed = [n for n in want if not torch.equal(want[n], before[n])]
    assert len(changed) >= 2 and any((want[n] - before[n]).abs().max() > 1e-2 for n in changed), "control: no update"


def test_actions_are_those_of_the_unmerged_adapter(trained, request, record_property):
    _, folder = trained
    bundle, seconds = timed(lambda: vc.build(folder, out=folder.parent / "a.vlab"))
    assert "adapter of" in bundle.manifest["provenance"]["origin"]
    adapted, plain = with_peft(folder)[0], with_peft(folder, adapted=False)[0]
    noise, wants, gots, others = noise_for(bundle), [], [], []
    for seed in range(3):
        seen = observation(adapted, seed)
        with torch.no_grad():
            wants.append(original_actions(folder, adapted, seen, noise))
            others.append(original_actions(folder, plain, seen, noise))
        gots.append(compiled_actions(bundle, folder, adapted, seen, noise))
    want, got, other = map(np.concatenate, (wants, gots, others))
    assert np.abs(got - want).max() <= 1e-5, np.abs(got - want).max()
    assert np.abs(other - want).max() > 1e-2, "control: the adapter changes nothing"
    compared(record_property, bundle, share_of_spread(got, want), files="LeRobot 0.6.1, LoRA",
             policy=request.node.callspec.id, oracle="peft, unmerged", seconds=seconds)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with sized("act", real=False):
        train("act", folder / "base", folder / "adapter", {"r": 3, "target_modules": ["linear1", "linear2"]})
    return folder / "adapter"


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole.parent, tmp_path / "copy")) / "adapter"


def change(folder: Path, **to) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | to), encoding="utf-8")


def tensors(folder: Path, edit) -> None:
    found = load_file(folder / "adapter_model.safetensors")
    edit(found)
    save_file(found, folder / "adapter_model.safetensors")


def drop(end: str):
    return lambda folder: tensors(folder, lambda t: t.pop(next(n for n in sorted(t) if n.endswith(end))))


def rename(old: str, new: str):
    return lambda folder: tensors(folder, lambda t: [t.update({n.replace(old, new): t.pop(n)}) for n in list(t)])


REFUSED = {
    "another method": (lambda f: change(f, peft_type="IA3"), "method IA3"),
    "DoRA": (lambda f: change(f, use_dora=True), "use_dora = True"),
    "PiSSA": (lambda f: change(f, init_lora_weights="pissa_niter_4"), "pissa_niter_4"),
    "a newer key": (lambda f: change(f, new_trick={"strength": 2}), "new_trick"),
    "a scale that is no number": (lambda f: change(f, lora_alpha="x"), "lora_alpha = 'x' is not understood"),
    "a scale of NaN": (lambda f: change(f, lora_alpha=float("nan")), "lora_alpha = nan is not understood"),
    "layers of no expression": (lambda f: change(f, target_modules="((("), "target_modules = '(((' is not understood"),
    "ranks that are no table": (lambda f: change(f, rank_pattern=[1]), "rank_pattern = [1] is not understood"),
    "scales of no expression": (lambda f: change(f, alpha_pattern={"(": 3}), "alpha_pattern = {'(': 3} is not"),
    "no base": (lambda f: change(f, base_model_name_or_path=None), "does not say on which policy"),
    "a base that is not in the cache": (lambda f: change(f, base_model_name_or_path="nobody/base"),
                                        '"nobody/base" is neither a path nor in the cache'),
    "a base that is not there": (lambda f: change(f, base_model_name_or_path="/nowhere/pretrained_model"),
                                 "no such directory"),
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
    "a base of another type": (lambda f: (f.parent / "base" / "config.json").write_text('{"type": "vqbet"}'),
                               'it is of type "vqbet"'),
    "a base without weights": (lambda f: (f.parent / "base" / "model.safetensors").unlink(), "has no model.safetens"),
    "a factor less": (drop("lora_B.weight"), "has only the factors A"),
    "a layer less": (lambda f: (drop("lora_A.weight")(f), drop("lora_B.weight")(f)), "have no tensors"),
    "another rank": (lambda f: change(f, r=5), "its factors have rank 3, adapter_config.json says 5"),
    "another policy's layers": (rename("encoder.layers.0.", "encoder.layers.9."), "it has no layer"),
    "another size": (lambda f: tensors(f, lambda t: [t.update({n: torch.zeros(3, 5)}) for n in t if "lora_A" in n]),
                     "the update is"),
    "other tensors": (rename("lora_A.weight", "lora_magnitude_vector"), "is neither a factor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused(copy, case):
    change(copy, base_model_name_or_path=str(copy.parent / "base"))
    damage, message = REFUSED[case]
    damage(copy)
    with pytest.raises(SourceError) as error:
        read_policy(copy)
    assert message in error.value.why, error.value.why


def test_a_pattern_that_backtracks_without_end_is_refused(copy, monkeypatch):
    monkeypatch.setattr(layer_patterns, "LONGEST_S", 1.0)
    change(copy, base_model_name_or_path=str(copy.parent / "base"), target_modules="([a-z._0-9]+)+!")
    with pytest.raises(SourceError, match="takes too long"):
        read_policy(copy)


def test_a_path_from_the_adapters_directory_is_found(copy):
    change(copy, base_model_name_or_path="../base")
    digest = hashlib.sha256((copy.parent / "base" / "model.safetensors").read_bytes()).hexdigest()
    assert read_policy(copy).origin["adapter of"] == f"model.safetensors with sha256 {digest}"


def test_a_name_on_the_hub_is_fetched_at_the_adapters_revision(copy, monkeypatch):
    """Into the cache, whose folders say which commit it was."""
    commit, asked = "0123456789" * 4, []
    cached = Path(shutil.copytree(copy.parent / "base", copy.parent / "models--org--base" / "snapshots" / commit))
    monkeypatch.setattr(hub, "fetch", lambda name, weights, progress: (asked.append(str(name)), cached)[1])
    change(copy, base_model_name_or_path="org/base", revision="v2")
    assert read_policy(copy).origin["adapter of"] == f"org/base@{commit}" and asked == ["org/base@v2"]


def test_a_merged_policy_is_read_as_it_is(copy):
    """As merge_and_unload().save_pretrained writes it, whatever its config.json says of PEFT."""
    shutil.copy(copy.parent / "base" / "model.safetensors", copy)
    (copy / "adapter_config.json").unlink()
    assert "adapter of" not in read_policy(copy).origin
