"""OpenVLA and OpenVLA-OFT directories that are damaged or do not fit: refused in four lines."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.frontends.openvla.checkpoints import options_of, write
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.phases.load_policy import environment_for, load_policy
from vlart.errors import VlaError

INDEX, SHARD = "model.safetensors.index.json", "model-00002-of-00003.safetensors"
HEAD, STATE = "action_head--50000_checkpoint.pt", "proprio_projector--50000_checkpoint.pt"
PATCHES = "vision_backbone.featurizer.patch_embed.proj.weight"
NORM = "language_model.model.norm.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return {case: write(case, folder / case) for case in ("openvla", "oft-regression", "oft-diffusion")}


@pytest.fixture
def copy(whole, tmp_path):
    return lambda case: shutil.copytree(whole[case], tmp_path / case)


def edit(file: str, change):
    def apply(folder: Path) -> None:
        document = json.loads((folder / file).read_text(encoding="utf-8"))
        change(document)
        (folder / file).write_text(json.dumps(document), encoding="utf-8")

    return apply


def remove(*files: str):
    return lambda folder: [(folder / f).unlink() for f in files]


def shard_of(folder: Path, name: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"][name]


def tensors(change, name: str = NORM):
    """Edits the shard that has this tensor; the index says so too."""
    def apply(folder: Path) -> None:
        file = shard_of(folder, name)
        found = load_file(file)
        change(found)
        save_file(found, file, {"format": "pt"})
        edit(INDEX, lambda d: d.update(weight_map={
            n: f for n, f in d["weight_map"].items() if f != file.name} | dict.fromkeys(found, file.name)))(folder)

    return apply


def part(file: str, change):
    def apply(folder: Path) -> None:
        found = torch.load(folder / file, weights_only=True)
        torch.save(change(found) or found, folder / file)

    return apply


def without(name: str):
    return part(HEAD, lambda t: t.pop(name) is None)


def cut(file: str):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:900])


def to_pickled(folder: Path, count: int) -> None:
    """Instead of safetensors, what transformers wrote before them."""
    whole: dict[str, torch.Tensor] = {}
    for file in folder.glob("model-*.safetensors"):
        whole |= load_file(file)
        file.unlink()
    (folder / INDEX).unlink()
    names, index = sorted(whole), {}
    for i in range(count):
        file = "pytorch_model.bin" if count == 1 else f"pytorch_model-{i + 1:05}-of-{count:05}.bin"
        part = {n: whole[n] for n in names[i::count]}
        torch.save(part, folder / file)
        index |= dict.fromkeys(part, file)
    if count > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")


def statistics(change):
    return edit("dataset_statistics.json", lambda d: [change(row) for row in d.values()])


class Executed:
    """What a malicious file would run."""

    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


OPENVLA = {
    "a shard is missing": (remove(SHARD), f"{SHARD} is missing"),
    "all weights are missing": (lambda f: [p.unlink() for p in f.glob("model*")], "the checkpoint has no weights"),
    "no index, a shard is missing": (remove(INDEX, SHARD), f"{SHARD} is missing"),
    "a shard is cut off": (cut(SHARD), f"{SHARD} cannot be read"),
    "a shard is another's": (lambda f: save_file({"x": torch.zeros(1)}, f / SHARD), f"{SHARD} lacks"),
    "the index is empty": (edit(INDEX, lambda d: d.update(weight_map={})), f"{INDEX} names no files"),
    "the index leads out": (edit(INDEX, lambda d: d["weight_map"].update(x="../x.safetensors")), "names no files"),
    "a weight is missing": (tensors(lambda t: t.pop(NORM)), f"1 missing, 0 unknown: {NORM}"),
    "a weight is unknown": (tensors(lambda t: t.update(more=torch.zeros(2))), "0 missing, 1 unknown: more"),
    "a weight has another shape": (tensors(lambda t: t.update({NORM: torch.zeros(9)})), f"{NORM} has the shape [9]"),
    "other statistics": (statistics(lambda row: row["action"].update(q99=[1.0, 2.0])), "do not fit each other"),
    "NaN in the statistics": (statistics(lambda row: row["action"]["q01"].__setitem__(0, float("nan"))),
                              '"q01" of "action" is missing or not finite'),
    "ranges in the wrong order": (statistics(lambda row: row["action"].update(
        q01=row["action"]["q99"], q99=row["action"]["q01"])), "q99 is below q01"),
    "statistics beyond floating point": (statistics(lambda row: row["action"].update(q99=[10 ** 400] * 7)),
                                         '"q99" of "action" is missing or not finite'),
    "a mask of words": (statistics(lambda row: row["action"].update(mask=["no"] * 7)), "mask has something else than"),
    "no action statistics": (statistics(lambda row: row.pop("action")), '"q01" of "action" is missing'),
    "no statistics": (remove("dataset_statistics.json"), "the checkpoint has no statistics"),
    "statistics are no table": (edit("dataset_statistics.json", lambda d: d.update(fractal=3)), "has no statistics"),
    "no image settings": (remove("preprocessor_config.json"), "preprocessor_config.json cannot be read"),
    "image settings of one tower": (edit("preprocessor_config.json", lambda d: d.update(means=d["means"][:1])),
                                    '"means" does not fit the vision backbone'),
    "no tokenizer": (remove("tokenizer.json"), "there is no tokenizer.json"),
    "a damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "the tokenizer cannot be read"),
    "a tokenizer that is no text": (lambda f: (f / "tokenizer.json").write_bytes(b"\xff"), "the tokenizer cannot be"),
    "another tokenizer": (edit("tokenizer.json", lambda d: d["added_tokens"].pop()), "the tokenizer has no token"),
    "another vision backbone": (edit("config.json", lambda d: d.update(vision_backbone_id="clip-vit-l")),
                                'the vision backbone "clip-vit-l" is not covered'),
    "no bins": (edit("config.json", lambda d: d.update(n_action_bins="many")), "n_action_bins = 'many' is no number"),
    "more bins than tokens": (edit("config.json", lambda d: d.update(n_action_bins=10 ** 12)),
                              "the vocabulary has no 1000000000000 tokens"),
    "more padding than tokens": (edit("config.json", lambda d: d.update(pad_to_multiple_of=32000)),
                                 "the vocabulary has no 256 tokens"),
    "an adapter beside the weights": (lambda f: (f / "adapter_config.json").write_text("{}"), "that is not merged"),
    "pixels without a spread": (edit("preprocessor_config.json", lambda d: d.update(stds=[[0.0] * 3] * 2)),
                                '"stds" does not fit'),
    "pixels that are no numbers": (edit("preprocessor_config.json", lambda d: d.update(
        means=[[float("nan")] * 3] * 2)), '"means" does not fit'),
    "another activation": (edit("config.json", lambda d: d.update(timm_override_act_layers=["quick_gelu", None])),
                           "timm_override_act_layers = ['quick_gelu', None] is not covered"),
    "heads that do not divide": (edit("config.json", lambda d: d["text_config"].update(num_attention_heads=5)),
                                 "num_attention_heads = 5 does not fit"),
    "odd key-value heads": (edit("config.json", lambda d: d["text_config"].update(num_key_value_heads=3)),
                            "num_key_value_heads = 3 does not fit"),
    "an epsilon that is none": (edit("config.json", lambda d: d["text_config"].update(rms_norm_eps="small")),
                                "rms_norm_eps = 'small' does not fit"),
    "a flat patch embedding": (tensors(lambda t: t.update({PATCHES: torch.zeros(48, 9)}), PATCHES), f"lack {PATCHES}"),
    "other language settings": (edit("config.json", lambda d: d["text_config"].update(rope_scaling={"factor": 2})),
                                "rope_scaling = {'factor': 2} is not covered"),
    "another width": (edit("config.json", lambda d: d["text_config"].update(hidden_size=128)),
                      "config.json does not fit the weights"),
    "another timm model": (edit("config.json", lambda d: d.update(timm_model_ids=["vit_base_patch16_224"])),
                           "timm_model_ids = ['vit_base_patch16_224'] is not covered"),
    "frames of another size": (edit("config.json", lambda d: d.update(image_sizes=[384, 384])),
                               "image_sizes = [384, 384] is not covered"),
    "quantised": (edit("config.json", lambda d: d.update(quantization_config={"load_in_4bit": True})),
                  "the checkpoint is quantised"),
    "tokens are drawn": (edit("config.json", lambda d: d.update(do_sample=True, temperature=0.7)),
                         "not drawn, temperature = 0.7"),
    "tokens are drawn, it is said elsewhere": (lambda f: (f / "generation_config.json").write_text(
        '{"do_sample": true}'), "do_sample = True is not covered"),
    "several beams": (edit("config.json", lambda d: d.update(num_beams=4)), "num_beams = 4 is not covered"),
    "a SentencePiece model": (lambda f: (f / "tokenizer.json").rename(f / "tokenizer.model"),
                              "the SentencePiece model cannot be read"),
    "PyTorch's file with code": (lambda f: ([p.unlink() for p in f.glob("model*")], (f / "pytorch_model.bin")
                                            .write_bytes(pickle.dumps(Executed(), 2))),
                                 "pytorch_model.bin cannot be read"),
    "PyTorch's file is cut off": (lambda f: (to_pickled(f, 1), cut("pytorch_model.bin")(f)),
                                  "pytorch_model.bin cannot be read"),
    "a part of PyTorch's files": (lambda f: (to_pickled(f, 2), remove("pytorch_model-00002-of-00002.bin")(f)),
                                  "pytorch_model-00002-of-00002.bin is missing"),
    "damaged config": (lambda f: (f / "config.json").write_text('{"model_type": "openvla",'), "config.json cannot be"),
}
OFT = {
    "two heads": (lambda f: shutil.copy(f / HEAD, f / HEAD.replace("50000", "60000")), "there are 2 files of"),
    "a head with code": (lambda f: (f / HEAD).write_bytes(pickle.dumps(Executed(), 2)), f"{HEAD} cannot be read"),
    "a head with objects": (lambda f: torch.save({"model": Executed()}, f / HEAD), f"{HEAD} cannot be read"),
    "a head that is a list": (lambda f: torch.save([torch.zeros(1)], f / HEAD), f"{HEAD} is no state dict"),
    "a head is cut off": (cut(HEAD), f"{HEAD} cannot be read"),
    "a head with complex numbers": (part(HEAD, lambda t: {n: x.to(torch.complex64) for n, x in t.items()}),
                                    "of real numbers"),
    "a sparse head": (part(HEAD, lambda t: {n: x.to_sparse() for n, x in t.items()}), "no dense tensor"),
    "a head without content": (part(HEAD, lambda t: {n: x.to("meta") for n, x in t.items()}), "no dense tensor"),
    "a head twice": (part(HEAD, lambda t: t | {n.removeprefix("module."): x + 1 for n, x in t.items()}), "twice"),
    "a pipe": (lambda f: ((f / HEAD).unlink(), os.mkfifo(f / HEAD)), "it is no regular file"),
    "a head lacks its end": (without("module.model.fc2.weight"), f"{HEAD} lacks fc2.weight"),
    "a head lacks a layer": (without("module.model.layer_norm2.bias"), "1 missing, 0 unknown"),
    "a head of another width": (part(HEAD, lambda t: t.update({"module.model.layer_norm1.weight": torch.zeros(9)})),
                                "layer_norm1.weight has the shape [9]"),
    "statistics of another robot": (statistics(lambda row: row["action"].update(
        q01=[0.0] * 6, q99=[1.0] * 6, mask=[True] * 6)), "are for another robot"),
    "statistics of another state": (statistics(lambda row: row["proprio"].update(q01=[0.0] * 9, q99=[1.0] * 9)),
                                    "are for another robot"),
    "no statistics of the state": (statistics(lambda row: row.pop("proprio")), '"q01" of "proprio" is missing'),
}


def refused(folder: Path, case: str, **options: str | None) -> str:
    with pytest.raises(VlaError) as raised:
        load_policy(folder, options=CheckpointOptions(**options_of(case) | options))
    assert str(raised.value).count("\n") == 3, raised.value
    return str(raised.value)


def test_whole_ones_are_read_without_an_environment(whole):
    for case, folder in whole.items():
        options = CheckpointOptions(**options_of(case))
        assert environment_for(str(folder), options=options) is None
        assert load_policy(folder, options=options).origin["actions of"] in ("fractal", "libero_goal_no_noops")


@pytest.mark.parametrize("name", OPENVLA)
def test_damaged_openvla(copy, name):
    folder = copy("openvla")
    OPENVLA[name][0](folder)
    assert OPENVLA[name][1] in refused(folder, "openvla")


@pytest.mark.parametrize("name", OFT)
def test_damaged_oft(copy, name):
    folder = copy("oft-regression")
    OFT[name][0](folder)
    assert OFT[name][1] in refused(folder, "oft-regression")


def test_half_of_a_diffusion_head(copy):
    for file in ("noisy_action_projector--50000_checkpoint.pt", HEAD):
        folder = copy("oft-diffusion")
        (folder / file).unlink()
        assert "does not fit the other files" in (said := refused(folder, "oft-diffusion")) or "is missing" in said
        shutil.rmtree(folder)


@pytest.mark.parametrize("case, options, what", [
    ("openvla", {"unnorm_key": None}, "statistics of several data sets"),
    ("openvla", {"unnorm_key": "libero"}, 'there are no statistics "libero"'),
    ("openvla", {"lerobot": "0.4.4"}, "--lerobot does not apply"),
    ("oft-regression", {"oft_config": None}, "does not say how it was trained"),
    ("oft-regression", {"oft_config": "libero"}, "images is not given"),
    ("oft-regression", {"oft_config": "libero,images=4"}, "images=4 is more than 3"),
    ("oft-regression", {"oft_config": "libero,images=2,steps=5"}, "steps and trained_steps do not apply"),
    ("oft-regression", {"oft_config": "franka,images=1"}, '"franka" is not in the table'),
    ("oft-diffusion", {"oft_config": "libero,images=2"}, "the steps of the diffusion head are not given"),
])
def test_what_no_file_says_is_asked(whole, case, options, what):
    assert what in (said := refused(whole[case], case, **options))
    if "several" in what or "no statistics" in what:
        assert "bridge_orig, fractal" in said


def test_an_adapter_alone_is_refused_with_the_way_to_merge_it(copy):
    folder = copy("oft-regression")
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "lora_adapter").mkdir()
    (folder / "lora_adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "merge_lora_weights_and_save.py" in refused(folder, "oft-regression")


def test_statistics_in_config_json_count_if_there_is_no_other_file(copy):
    folder = copy("openvla")
    of_training = json.loads((folder / "dataset_statistics.json").read_text(encoding="utf-8"))
    (folder / "dataset_statistics.json").unlink()
    edit("config.json", lambda d: d.update(norm_stats={"fractal": of_training["fractal"]}))(folder)
    assert load_policy(folder).origin["actions of"] == "fractal"


@pytest.mark.parametrize("count", [1, 2])
def test_weights_in_pytorchs_own_files_are_the_same(whole, copy, count):
    folder = copy("openvla")
    to_pickled(folder, count)
    options = CheckpointOptions(**options_of("openvla"))
    policies = [load_policy(f, options=options) for f in (whole["openvla"], folder)]
    with torch.no_grad():
        want, got = (p.observe(**p.example_inputs)["action_tokens"] for p in policies)
    assert torch.equal(got, want)


def test_settings_of_sampling_without_sampling_change_nothing(copy):
    """generate() reads them only where do_sample is set."""
    folder = copy("openvla")
    edit("config.json", lambda d: d.update(temperature=0.2, top_p=0.9))(folder)
    assert load_policy(folder, options=CheckpointOptions(**options_of("openvla"))).name == "openvla"
