"""Policies that are ONNX files: compiled, against onnxruntime on the file itself, and every way to be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import vlacompile as vc
from tests.cli.test_errors import fails, working_directory  # noqa: F401, fixtures
from tests.samples import policies
from tests.samples.onnx_models import export, original
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.frontends.onnx import elementwise
from vlacompile.frontends.onnx.ops import TABLE, Op
from vlacompile.phases.load_policy import load_policy
from vlart.errors import ParityError
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

MADE = {"late_fusion": policies.late_fusion, "flow": policies.flow}
# opset, torch.onnx's present exporter or its older one
WRITTEN = [("late_fusion", 20, True), ("late_fusion", 17, False), ("flow", 18, True), ("flow", 21, True),
           ("flow", 17, False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """late_fusion.onnx and flow.onnx, with weights and sidecars beside them."""
    folder = tmp_path_factory.mktemp("onnx")
    for name, make in MADE.items():
        export(make(), folder / f"{name}.onnx")
    return folder


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """A copy to be damaged."""
    for file in folder.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path


def inputs(policy: vc.Policy, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {}
    for name, example in policy.example_inputs.items():
        a = example.numpy()
        made[name] = (rng.standard_normal(a.shape).astype(a.dtype) if a.dtype.kind == "f" else
                      rng.random(a.shape) < 0.8 if a.dtype == bool else
                      rng.integers(0, 256 if a.dtype == np.uint8 else 50, a.shape).astype(a.dtype))
    return made


def compiled(bundle: vc.Bundle, given: dict[str, np.ndarray]) -> np.ndarray:
    with vc.Session(bundle.path) as session:
        for name, array in given.items():
            session.write(name, array)
        session.step()
        return session.read("action")


@pytest.fixture(scope="module", params=WRITTEN, ids=lambda w: f"{w[0]}-{w[1]}-{'dynamo' if w[2] else 'older'}")
def built(request, tmp_path_factory, every_stage):
    name, opset, dynamo = request.param
    folder = tmp_path_factory.mktemp(name)
    path = export(MADE[name](), folder / f"{name}.onnx", opset, dynamo)
    return MADE[name](), path, vc.build(path, recipe=str(every_stage), out=folder / "a.vlab")


def test_actions_are_those_of_onnxruntime(built):
    policy, path, bundle = built
    for seed in range(3):
        given = inputs(policy, seed)
        want = original(path, given)["action"]
        got = compiled(bundle, given)
        assert compare(got, want).within(tolerance("f32", "chunk").limit(want)), compare(got, want)


def test_another_input_fails_the_gate(built):
    policy, path, bundle = built
    want = original(path, inputs(policy, 0))["action"]
    for name in policy.sources:
        if policy.example_inputs[name].dtype == torch.bool:
            continue
        got = compiled(bundle, inputs(policy, 0) | {name: inputs(policy, 1)[name]})
        assert not compare(got, want).within(tolerance("f32", "chunk").limit(want)), name


def test_stages_are_those_of_the_module(built, late_fusion_bundle, flow_bundle):
    policy, _, bundle = built
    same = {"late_fusion": late_fusion_bundle, "flow": flow_bundle}[policy.name]
    shape = [(s.name, s.iterations) for s in bundle.plan.stages]
    assert shape == [(s.name, s.iterations) for s in same.plan.stages]
    if policy.name == "flow":
        assert max(s.iterations for s in bundle.plan.stages) == 4


def test_an_unchanged_instruction_is_not_encoded_again(built):
    policy, _, bundle = built
    given = inputs(policy, 0)
    with vc.Session(bundle.path) as session:
        for seed in range(3):
            task = {n: given[n] for n in given if policy.sources[n].update == "task"}
            for name, array in (inputs(policy, seed) | task).items():
                session.write(name, array)
            session.step()
        runs = session.stats().runs()
    assert runs["language"] == 1 and all(n == 3 for name, n in runs.items() if name.startswith("vision"))


@pytest.mark.parametrize("name", MADE)
def test_products_with_weights_are_linears_and_split(folder, name):
    program = capture(load_policy(folder / f"{name}.onnx"))
    targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
    weights = sum(isinstance(m, torch.nn.Linear) for m in MADE[name]().observe.modules())
    assert targets.count(torch.ops.aten.linear.default) >= weights - 2  # the time embedding is known
    assert torch.ops.aten.addmm.default not in targets and torch.ops.aten.mm.default not in targets
    assert SplitLinearOverConcat().run(program).changed


def test_layers_are_not_taken_for_iterations(tmp_path):
    """Three equal layers on the noise: their weights differ, so they are no loop."""
    class Layers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8) for _ in range(3)])

        def forward(self, state, noise):
            for layer in self.layers:
                noise = torch.relu(layer(noise + state))
            return {"action": noise}

    torch.manual_seed(0)
    policy = vc.Policy("layers", Layers(), {"state": vc.Source("observation"), "noise": vc.Source("step")},
                       {"state": torch.randn(1, 4, 8), "noise": torch.randn(1, 4, 8)})
    bundle = vc.build(export(policy, tmp_path / "layers.onnx"), out=tmp_path / "a.vlab")
    assert max(s.iterations for s in bundle.plan.stages) == 1
    assert any("no repeated body" in note for note in bundle.manifest["provenance"]["notes"])


def test_sidecar_names_outputs_examples_and_sizes(own):
    path = own / "late_fusion.onnx"
    made = inputs(policies.late_fusion(), 5)
    np.savez(own / "seen.npz", **made)
    text = path.with_suffix(".sources.toml").read_text().replace("range = [0, 49]\n", "")
    path.with_suffix(".sources.toml").write_text(
        'name = "pick"\nexecute = 5\nexamples = "seen.npz"\noutputs = ["action"]\n' + text)
    policy = load_policy(path)
    assert (policy.name, policy.execute, policy.outputs) == ("pick", 5, ("action",))
    assert all(np.array_equal(policy.example_inputs[n], a) for n, a in made.items())


def test_metadata_stands_for_the_sidecar(own):
    path = own / "flow.onnx"
    model = onnx.load(path, load_external_data=False)
    sidecar = path.with_suffix(".sources.toml")
    onnx.helper.set_model_props(model, {"vlacompile.sources": sidecar.read_text()})
    sidecar.unlink()
    path.write_bytes(model.SerializeToString())
    assert {n: s.update for n, s in load_policy(path).sources.items()}["noise"] == "step"


def test_open_dimensions_are_fixed_by_the_sidecar(tmp_path):
    policy = policies.flow()
    size = torch.export.Dim("words", min=2, max=20)
    path = export(policy, tmp_path / "flow.onnx", dynamic_shapes=(({1: size}, None, None, None),))
    sidecar = path.with_suffix(".sources.toml")
    sidecar.write_text(sidecar.read_text().replace("range = [0, 49]", "range = [0, 49]\nshape = [1, 9]"))
    assert load_policy(path).example_inputs["tokens"].shape == (1, 9)


# Every way to be wrong: four lines and exit code 4

def edit(path: Path, before: str, after: str) -> None:
    sidecar = path.with_suffix(".sources.toml")
    text = sidecar.read_text()
    assert before in text
    sidecar.write_text(text.replace(before, after))


def rewrite(path: Path, change) -> None:
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def another_op(model) -> None:
    next(n for n in model.graph.node if n.op_type == "LayerNormalization").op_type = "SkipNorm"


def other_domain(model) -> None:
    next(n for n in model.graph.node if n.op_type == "LayerNormalization").domain = "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def standard_op(model) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Softmax")
    node.op_type = "Hardmax"


def open_size(model) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "words"


def elsewhere(model) -> None:
    entry = next(t for t in model.graph.initializer if t.external_data).external_data[0]
    assert entry.key == "location"
    entry.value = "../flow.onnx.data"


def set_opset(model) -> None:
    model.opset_import[0].version = 12


DAMAGES = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-1000]), "cannot be read", ""),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read", ""),
    "no model at all": (lambda p: p.write_bytes(b"\x89PNG\r\n" * 50), "cannot be read", ""),
    "external data missing": (lambda p: (p.parent / "flow.onnx.data").unlink(), "external data is missing", "stored"),
    "external data cut off": (lambda p: (p.parent / "flow.onnx.data").write_bytes(b"1234"), "is truncated", "4 bytes"),
    "external data elsewhere": (lambda p: rewrite(p, elsewhere), "is stored elsewhere", "not below the model's "
                                                                                        "directory"),
    "an op of nobody": (lambda p: rewrite(p, another_op), "cannot be read", "SkipNorm"),
    "an op of another domain": (lambda p: rewrite(p, other_domain), "com.microsoft.LayerNormalization", "standard"),
    "an op not covered": (lambda p: rewrite(p, standard_op), "ops that are not covered: Hardmax", ""),
    "an old opset": (lambda p: rewrite(p, set_opset), "opset 12 is not covered", "17 to 21"),
    "an open size": (lambda p: rewrite(p, open_size), 'the size of "tokens" is dynamic', "int64[1,words]"),
    "no sidecar": (lambda p: p.with_suffix(".sources.toml").unlink(), "update classes of the inputs are not declared",
                   "tokens int64[1,6]; image uint8[1,32,32,3]; state float32[1,9]; noise float32[1,10,7]"),
    "sidecar is no TOML": (lambda p: edit(p, "update", "update ="), "the sidecar is not valid TOML", "line"),
    "sidecar with an unknown input": (lambda p: edit(p, '"state"', '"stat"'), 'no input "stat"', '"state"?'),
    "sidecar with an unknown key": (lambda p: edit(p, "update", "updated"), 'key "inputs.tokens.updated"', "update"),
    "sidecar with an unknown class": (lambda p: edit(p, '"task"', '"tasks"'), '"tasks" is not an update', '"task"?'),
    "sidecar without an input": (lambda p: edit(p, '[inputs."noise"]\nupdate = "step"\n', ""),
                                 "no update class is declared for noise", "noise float32[1,10,7]"),
    "sidecar without a range": (lambda p: edit(p, "range = [0, 49]", ""), 'range of the integers in "tokens"', "token"),
    "sidecar with a range upside down": (lambda p: edit(p, "[0, 49]", "[49, 0]"), "is not a range", "smallest"),
    "sidecar with another shape": (lambda p: edit(p, "range", "shape = [1, 7]\nrange"), "does not fit", "int64[1,6]"),
    "sidecar with an unknown output": (lambda p: edit(p, '[inputs."tokens"]',
                                                      'outputs = ["actions"]\n[inputs."tokens"]'),
                                       'the model has no output "actions"', '"action"?'),
    "examples missing": (lambda p: edit(p, '[inputs."tokens"]', 'examples = "no.npz"\n[inputs."tokens"]'),
                         "the examples cannot be read", "no.npz"),
    "no such file": (lambda p: p.unlink(), "does not exist", ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_with_four_lines(own, damage, fails):  # noqa: F811
    change, what, why = DAMAGES[damage]
    change(own / "flow.onnx")
    lines = fails(4, "build", own / "flow.onnx", "-o", own / "a.vlab")
    assert what in lines["what"] and why in lines["why"], lines
    assert not (own / "a.vlab").exists()


def test_the_skeleton_can_be_pasted(own, fails):  # noqa: F811
    path = own / "flow.onnx"
    path.with_suffix(".sources.toml").unlink()
    fix = fails(4, "build", path)["fix"]
    pasted = fix[fix.index("inputs = "):]
    path.with_suffix(".sources.toml").write_text(pasted.replace("?", "49"))
    assert '"" is not an update class' in fails(4, "build", path)["what"]
    for update in ("task", "observation", "observation", "step"):
        pasted = pasted.replace('update = ""', f'update = "{update}"', 1)
    path.with_suffix(".sources.toml").write_text(pasted.replace("?", "49"))
    assert load_policy(path).sources["noise"] == vc.Source("step")


def test_a_wrong_translation_is_noticed(folder, monkeypatch):
    """Negative control of the comparison with onnxruntime: an op table with a mistake in it."""
    entry = TABLE["Softmax"]
    assert entry.function is elementwise.softmax
    wrong = Op(lambda node, x: torch.softmax(x * 1.01, -1), *(getattr(entry, f) for f in
               ("known", "maybe", "weights", "of_shape", "of_values")))
    monkeypatch.setitem(TABLE, "Softmax", wrong)
    with pytest.raises(ParityError) as error:
        load_policy(folder / "flow.onnx")
    assert "than onnxruntime" in error.value.what
