"""Trained weights for a system: read by the authors' names, whole, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.samples import tensorflow_bundle
from tests.samples.flax_msgpack import packed, streamed
from tests.samples.weights_by_name import weight
from tests.zoo.oracles import lapa_inputs, octo_inputs, rt_1_inputs
from tests.zoo.oracles.recorded import weight_of_flax
from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.phases.load_policy import load_policy
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems import rt_1
from vlart.errors import SourceError

NAME = "act@tiny"
STATISTICS = ("qpos_mean", "qpos_std", "action_mean", "action_std")


def tensors() -> dict[str, torch.Tensor]:
    """As the authors' file has them: their names, and what the policy has no use for."""
    module, checkpoint = catalogue.load(f"zoo:{NAME}").observe, catalogue.find("act").system.checkpoint
    left = checkpoint.statistics_of(module)
    state = {n: t for n, t in module.state_dict().items() if n not in left}
    drawn = {checkpoint.named(n): weight(n, t.shape).abs() if n.endswith("var") else weight(n, t.shape)
             for n, t in state.items() if t.is_floating_point()}
    return drawn | {"model.pos_table": torch.zeros(1, 102, 32)}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    save_file(tensors(), tmp_path / "model.safetensors")
    numbers = {n: [0.5 + 0.01 * i for i in range(14)] for n in STATISTICS}
    (tmp_path / "statistics.json").write_text(json.dumps(numbers), encoding="utf-8")
    return tmp_path


def loaded(path: Path):
    return catalogue.load(f"zoo:{NAME}", str(path))


@pytest.mark.parametrize("form", ["directory", "file", "torch", "training"])
def test_weights_reach_the_policy(checkpoint, form):
    path = checkpoint if form == "directory" else checkpoint / "model.safetensors"
    if form in ("torch", "training"):
        path, found = checkpoint / "policy_best.ckpt", load_file(checkpoint / "model.safetensors")
        torch.save(found if form == "torch" else {"state_dict": found, "epoch": 7}, path)
    policy = loaded(path)
    module = policy.observe
    assert torch.equal(module.action_head.weight, weight("action_head.weight", module.action_head.weight.shape))
    assert torch.allclose(module.action_std, 0.5 + 0.01 * torch.arange(14.0))
    assert policy.origin["weights"] == str(path)


def test_an_option_of_the_command_line(checkpoint, cli):
    code, out, err = cli("plan", f"zoo:{NAME}", "--weights", checkpoint, "--json")
    assert code == 0 and json.loads(out)["origin"]["weights"] == str(checkpoint), err
    assert cli("plan", "tests.samples.policies:flow", "--weights", checkpoint)[0] == SourceError.exit_code


def _change(path: Path, change) -> None:
    found = load_file(path / "model.safetensors")
    change(found)
    save_file(found, path / "model.safetensors")


@pytest.mark.parametrize(("change", "said"), [
    (lambda t: t.pop("model.action_head.bias"), "1 missing, 0 unknown: model.action_head.bias"),
    (lambda t: t.update({"model.action_head.bias": torch.zeros(15)}), "model.action_head.bias has the shape"),
    (lambda t: t.update({"model.more": torch.zeros(2)}), "0 missing, 1 unknown: model.more"),
])
def test_other_weights_are_refused(checkpoint, change, said):
    _change(checkpoint, change)
    with pytest.raises(SourceError, match=said):
        loaded(checkpoint)


@pytest.mark.parametrize(("text", "said"), [
    (None, "statistics of the training data are missing"), ("{}", "has no qpos_mean"),
    ('{"qpos_mean": [1.0]}', "qpos_mean does not fit"), ('{"qpos_mean": "a"}', "has no qpos_mean"),
    (json.dumps({"qpos_mean": [float("inf")] * 14}), "has no qpos_mean|does not fit|Infinity"),
    ('{"qpos_mean": [1], "qpos_mean": [2]}', '"qpos_mean" is there twice'),
])
def test_statistics_are_never_guessed(checkpoint, text, said):
    file = checkpoint / "statistics.json"
    file.unlink() if text is None else file.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=said):
        loaded(checkpoint)


@pytest.mark.parametrize(("name", "numbers", "said"), [
    ("action_std", [0.0] * 14, "action_std has 0"), ("qpos_std", [1.0] * 13 + [-2.0], "qpos_std has -2"),
    ("qpos_std", [True] * 14, "True is no float32"), ("qpos_mean", ["1"] * 14, "'1' is no float32"),
    ("more", [1.0], "unknown more")])
def test_statistics_that_no_training_has_are_refused(checkpoint, name, numbers, said):
    file = checkpoint / "statistics.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {name: numbers}), encoding="utf-8")
    with pytest.raises(SourceError, match=said) as error:
        loaded(checkpoint)
    assert error.value.where == str(file)


def test_a_range_goes_from_low_to_high(tmp_path):
    module, checkpoint = catalogue.load("zoo:openvla@tiny").observe, catalogue.find("openvla").system.checkpoint
    names = {n: module.get_buffer(n).tolist() for n in checkpoint.statistics_of(module)}
    state = {checkpoint.named(n): t.clone() for n, t in module.state_dict().items() if n not in names}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "statistics.json").write_text(json.dumps(names), encoding="utf-8")
    assert catalogue.load("zoo:openvla@tiny", str(tmp_path))
    for changed, said in ((names | {"bounds.low": [9.0] * 7}, "bounds.low is above bounds.high"),
                          (names | {"bounds.mask": [1] * 7}, "1 is no bool")):
        (tmp_path / "statistics.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(SourceError, match=said):
            catalogue.load("zoo:openvla@tiny", str(tmp_path))


BIAS = "model.action_head.bias"


@pytest.mark.parametrize(("tensor", "said"), [
    (torch.full((14,), float("nan")), f"{BIAS} is not finite"), (torch.tensor([1e300] * 14).double(), "is not finite"),
    (torch.tensor([0.0] * 13 + [float("inf")]), "1 of 14"), (torch.ones(14, dtype=torch.int32), f"{BIAS} is of int32"),
    (torch.ones(14, dtype=torch.bool), f"{BIAS} is of bool")])
def test_weights_that_are_no_finite_floats_are_refused(checkpoint, tensor, said):
    _change(checkpoint, lambda t: t.update({BIAS: tensor}))
    with pytest.raises(SourceError, match=said):
        loaded(checkpoint)


@pytest.mark.parametrize("other", ["pytorch_model.bin", "policy_best.ckpt", "other.safetensors"])
def test_two_files_of_weights_are_refused_and_one_of_them_is_read(checkpoint, other):
    found = load_file(checkpoint / "model.safetensors")
    (save_file if other.endswith("s") else torch.save)(found, checkpoint / other)
    with pytest.raises(SourceError, match=f"model.safetensors, {other}") as error:
        loaded(checkpoint)
    assert loaded(Path(error.value.fix.removeprefix("give the file: --weights ")))
    (checkpoint / "model.safetensors").unlink()
    if other == "pytorch_model.bin":
        assert loaded(checkpoint)
        return
    with pytest.raises(SourceError, match=f"it has {other}") as error:
        loaded(checkpoint)
    assert loaded(Path(error.value.fix.removeprefix("give the file: --weights ")))


def test_what_is_no_weights_may_be_beside_them(checkpoint):
    save_file({"mean": torch.zeros(3)}, checkpoint / "policy_preprocessor.safetensors")
    torch.save({}, checkpoint / "training_args.bin")
    assert loaded(checkpoint)


def test_a_file_that_would_run_code_is_refused_in_a_sentence(checkpoint):
    file = checkpoint / "policy_best.ckpt"
    torch.save({"model.x": Path("x")}, file)
    with pytest.raises(SourceError, match="WeightsUnpickler error: Unsupported") as error:
        loaded(file)
    assert "PyTorch 2.6" not in error.value.why and len(error.value.why) < 200


def test_a_link_that_leads_nowhere_says_so(checkpoint):
    file = checkpoint / "model.safetensors"
    file.unlink()
    file.symlink_to("model.safetensors")
    for path in (checkpoint, file):
        with pytest.raises(SourceError, match="leads back to itself"):
            loaded(path)
    file.unlink()
    file.symlink_to("gone.safetensors")
    with pytest.raises(SourceError, match="there is no gone.safetensors"):
        loaded(checkpoint)


def test_weights_of_nothing_are_refused(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        loaded(tmp_path / "gone")
    with pytest.raises(SourceError, match="has no weights"):
        loaded(tmp_path)


def octo_folder(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint of the authors', at the tiny size, and its tensors."""
    shapes = json.loads(octo_inputs.RECORDED.read_text(encoding="utf-8"))["shapes"]
    found = {n: octo_inputs.weight_of_jax(n, s) for n, s in shapes.items()}
    file = folder / "300000" / "default" / "checkpoint"
    file.parent.mkdir(parents=True)
    file.write_bytes(packed(found))
    numbers = {"action_mean": [0.1] * 7, "action_std": [2.0] * 7, "action_mask": [True] * 6 + [False]}
    (folder / "statistics.json").write_text(json.dumps(numbers), encoding="utf-8")
    return folder, found


def test_a_checkpoint_of_jax_is_read_without_it(tmp_path):
    """As its authors published it; queries, keys and values of a layer are apart there."""
    folder, theirs = octo_folder(tmp_path)
    module = catalogue.load("zoo:octo-small@tiny", str(folder)).observe
    block = "octo_transformer.BlockTransformer_0.Transformer_0.encoderblock_1.MultiHeadDotProductAttention_0."
    joined = torch.cat([theirs[f"{block}{n}.kernel"].flatten(1).T for n in ("query", "key", "value")])
    assert torch.equal(module.octo_transformer.block_transformer["transformer"].encoder_blocks[1].self_attention
                       .in_proj_weight, joined)
    assert module.action_mask.tolist() == [True] * 6 + [False]
    with pytest.raises(SourceError, match="missing"):
        catalogue.load("zoo:octo-base@tiny", str(folder / "300000"))


def test_layers_of_lapa_are_read_from_their_stack(tmp_path):
    shapes = json.loads(lapa_inputs.RECORDED.read_text(encoding="utf-8"))["shapes"]
    bins = {"transformer.ate.embedding": [256, 32], "action_head.kernel": [32, 256]}  # of the tiny policy
    theirs = {n: weight_of_flax(n, s) for n, s in (shapes | bins).items()}
    (tmp_path / "params").write_bytes(streamed({n: t for n, t in theirs.items() if not n.startswith("vqgan.")}))
    with pytest.raises(SourceError, match="vqgan.msgpack is missing") as error:
        catalogue.load("zoo:lapa@tiny", str(tmp_path))
    assert "pickle" in error.value.fix
    (tmp_path / "vqgan.msgpack").write_bytes(packed(
        {n.removeprefix("vqgan."): t for n, t in theirs.items() if n.startswith("vqgan.")}))
    edges = catalogue.load("zoo:lapa@tiny").observe.edges.tolist()
    (tmp_path / "statistics.json").write_text(json.dumps({"edges": edges}), encoding="utf-8")
    layer = catalogue.load("zoo:lapa@tiny", str(tmp_path)).observe.transformer.layers[1]
    assert torch.equal(layer.mlp.up_proj.weight, theirs["transformer.h.scan_decoder.feed_forward.w3.kernel"][1].T)


@pytest.mark.parametrize("name", ["gr-1", "octo-small", "openvla", "openvla-oft-plus", "tinyvla-s", "pi0-aloha",
                                  "pi05-base", "pi0-fast", "groot-n1", "groot-n1-5", "anywherevla"])
def test_every_tensor_of_a_system_reaches_its_module(tmp_path, name):
    """Of a file with the module's tensors by the checkpoint's names, apart where it has them apart."""
    module, checkpoint = catalogue.load(f"zoo:{name}@tiny").observe, catalogue.find(name).system.checkpoint
    none = TensorFiles(tmp_path, {}, {})
    places = {} if checkpoint.places is None else checkpoint.places(module, none)
    left, state = checkpoint.statistics_of(module), module.state_dict()
    theirs, want = {}, {}
    for ours in (n for n in state if n not in left and not n.startswith("detector.")):
        want[ours] = weight(ours, state[ours].shape)
        names = places.get(ours, (checkpoint.named(ours),))
        theirs |= dict(zip(names, want[ours].chunk(len(names)), strict=True))
    found = TensorFiles(tmp_path, {n: lambda t=t: t for n, t in theirs.items()},
                        {n: tuple(t.shape) for n, t in theirs.items()})
    checkpoint.fill(module, found)
    filled = module.state_dict()
    assert all(torch.equal(filled[n], t) for n, t in want.items())


def test_the_pieces_of_fast_come_with_the_weights(tmp_path):
    module, checkpoint = catalogue.load("zoo:pi0-fast@tiny").observe, catalogue.find("pi0-fast").system.checkpoint
    names = checkpoint.places(module, TensorFiles(tmp_path, {}, {}))
    save_file({names[n][0]: weight(n, t.shape) for n, t in module.state_dict().items()}, tmp_path / "model.safetensors")
    tokenizer = tmp_path / "fast" / "bpe_tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir(parents=True)
    (tmp_path / "fast" / "processor_config.json").write_text('{"min_token": -60, "scale": 5}', encoding="utf-8")
    tokenizer.write_text(json.dumps({"model": {"type": "BPE", "merges": [],
                                               "vocab": {chr(48 + i): i for i in range(64)}},
                                     "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                                 "use_regex": True}}), encoding="utf-8")
    given = {"fast": str(tmp_path / "fast"), "low": [-2.0] * 8, "high": [2.0] * 8}
    with pytest.raises(SourceError, match="missing") as error:
        catalogue.load("zoo:pi0-fast@tiny", str(tmp_path))
    assert '"fast": "DIRECTORY' in error.value.fix
    file = tmp_path / "statistics.json"
    for key, wrong in ((None, None), ("fast", str(tmp_path)), ("low", [1.0]), ("high", None), ("fast", None)):
        file.write_text(json.dumps(given | ({key: wrong} if key else {})), encoding="utf-8")
        if key is None:
            taken, _, units = catalogue.load("zoo:pi0-fast@tiny", str(tmp_path)).decoder.steps
            assert (taken.pieces[1], taken.offset) == ((49,), -60) and units.scale[0] == pytest.approx(2.0, abs=1e-5)
            continue
        with pytest.raises(SourceError, match="does not fit"):
            catalogue.load("zoo:pi0-fast@tiny", str(tmp_path))


def test_a_checkpoint_of_tensorflow_reaches_the_policy(tmp_path):
    """By the names of its variables; which token is which dimension is in no file of theirs, and is not guessed."""
    shapes = json.loads(rt_1_inputs.RECORDED.read_text(encoding="utf-8"))["shapes"]
    module = catalogue.load("zoo:rt-1@tiny").observe
    own = {n: tuple(t.shape) for n, t in module.state_dict().items() if t.is_floating_point()}
    names = {name: theirs for theirs in shapes
             for name in rt_1.of_tensorflow(TensorFiles(tmp_path, {}, {theirs: shapes[theirs]}), module).shapes}
    want = {n: weight(n, s).abs() + 0.5 if n.endswith(("running_var", "variance")) else weight(n, s)
            for n, s in own.items() if n not in ("low", "high")}
    theirs = {names[n]: _of_keras(names[n], t, module.transformer.layers[0].heads) for n, t in want.items()}
    tensorflow_bundle.written(tmp_path / "ckpt-7", theirs | {"save_counter": torch.tensor(7)})
    with pytest.raises(SourceError, match="statistics of the training data are missing") as error:
        catalogue.load("zoo:rt-1@tiny", str(tmp_path))
    assert '"low": [...]' in error.value.fix
    bounds = {n: module.get_buffer(n).tolist() for n in ("low", "high")}
    (tmp_path / "statistics.json").write_text(json.dumps(bounds), encoding="utf-8")
    filled = catalogue.load("zoo:rt-1@tiny", str(tmp_path / "ckpt-7.index")).observe.state_dict()
    assert all(torch.equal(filled[n], t) for n, t in want.items())


def _of_keras(name: str, tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """As Keras keeps it: heads are a dimension of their own, outputs come last."""
    if tensor.dim() == 4:
        return tensor.permute(2, 3, 0, 1) if name.endswith("depthwise_kernel") else tensor.permute(2, 3, 1, 0)
    if "_query_dense" in name or "_key_dense" in name or "_value_dense" in name:
        return (tensor.T if tensor.dim() == 2 else tensor).unflatten(-1, (heads, -1))
    if "_output_dense" in name and tensor.dim() == 2:
        return tensor.T.unflatten(0, (heads, -1))
    return tensor.T if tensor.dim() == 2 else tensor


def test_openpi_s_weights_of_jax_are_refused_with_its_own_conversion(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "_METADATA").write_text("{}", encoding="utf-8")
    with pytest.raises(SourceError, match="JAX") as error:
        catalogue.load("zoo:pi0-droid@tiny", str(tmp_path))
    assert "convert_jax_model_to_pytorch.py" in error.value.fix


def test_a_system_without_published_weights_takes_none(checkpoint):
    with pytest.raises(SourceError, match="no trained weights for GEN-0") as error:
        catalogue.load("zoo:gen-0@tiny", str(checkpoint))
    assert "factory" in error.value.fix and "published none" in error.value.why
    with pytest.raises(SourceError, match="no trained weights for GO-1") as error:
        catalogue.load("zoo:go-1@tiny", str(checkpoint))
    assert "CC BY-NC-SA" in error.value.why, "there are some, which do not fit"


def test_every_system_whose_weights_are_published_takes_them_or_says_why_not(checkpoint):
    """Where they are another's, as those of a detector, too."""
    for entry in catalogue.entries():
        system = entry.system
        assert not system.unread or system.checkpoint is None
        if system.weights and system.checkpoint is None:
            with pytest.raises(SourceError, match="no trained weights") as error:
                catalogue.load(f"zoo:{entry.name}@tiny", str(checkpoint))
            assert system.unread and system.unread in error.value.why and system.weights in error.value.why


def test_a_joined_system_takes_none(checkpoint):
    with pytest.raises(SourceError, match="takes no weights"):
        catalogue.load("zoo:nanovla-r@tiny", str(checkpoint))
    with pytest.raises(SourceError, match="does not apply"):
        load_policy("tests.samples.policies:flow", options=_options(checkpoint))


def _options(path: Path):
    from vlacompile.frontends.checkpoint_options import CheckpointOptions

    return CheckpointOptions(weights=str(path))
