"""Policy types without an adapter: what LeRobot 0.6.1 ships beside, and plugins. Against LeRobot's own loop; refused
where the actions do not follow from what a graph can have as inputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot.parity import observation
from tests.environments.lerobot061.registered import TASK, both, lerobot_loop, noise_of, write
from tests.environments.lerobot061.test_parity import SHARE
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.read import open_checkpoint, read_policy, tokens_of
from vlacompile.phases.load_policy import load_policy
from vlart.errors import CaptureError, SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
FOR_ONE = {"instruction": TASK}  # types whose code reads token ids as Python numbers
CASES = {  # type, its settings, options of the build, actions that are executed
    "reach (plugin)": ("reach", {}, {}, 4),
    "told (plugin)": ("told", {}, {}, 6),
    "gaussian_actor": ("gaussian_actor", {}, {}, 1),
    "tdmpc-without-planning": ("tdmpc", {"use_mpc": False}, {}, 1),
    "xvla": ("xvla", {}, {}, 6),
    "evo1": ("evo1", {}, FOR_ONE, 6),
    "eo1": ("eo1", {}, FOR_ONE, 6),
    "vla_jepa": ("vla_jepa", {}, FOR_ONE, 7),
}


@pytest.mark.parametrize("case", CASES)
def test_actions_are_those_of_lerobots_loop(case, tmp_path, record_property):
    kind, settings, options, count = CASES[case]
    folder = tmp_path / "pretrained_model"
    policy = write(kind, folder, **settings)
    bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab", options=CheckpointOptions(**options)))
    got, want = both(bundle, folder, policy, count)
    share = share_of_spread(got, want)
    assert share < SHARE
    assert np.abs(got[0] - want[1]).max() > 100 * SHARE * want.std(), "another observation gives the same actions"
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy=case, oracle="LeRobot 0.6.1",
             seconds=seconds)


def test_a_chunk_sees_the_observations_that_the_loop_remembers(tmp_path):
    """The second chunk of an episode, whose history are two different observations."""
    folder = tmp_path / "pretrained_model"
    original, policy = write("reach", folder), read_policy(folder)
    loop, noise = lerobot_loop(folder, original), policy.example_inputs["noise"]
    ticks = [observation(original, seed) for seed in range(5)]
    want = [loop.act(seen, {"noise": noise} if k % 4 == 0 else None) for k, seen in enumerate(ticks)][4]
    seen = {n: torch.from_numpy(np.stack([ticks[3][n], ticks[4][n]]))[None] for n in ticks[0]}
    got = policy.infer(**seen, noise=noise)["action"][0, 0].numpy()
    assert np.allclose(got, want, atol=1e-5)
    only_last = {n: torch.from_numpy(np.stack([ticks[4][n]] * 2))[None] for n in ticks[0]}
    assert not np.allclose(policy.infer(**only_last, noise=noise)["action"][0, 0].numpy(), want, atol=1e-3)


def test_what_is_executed_and_drawn_is_found_out(tmp_path):
    write("reach", tmp_path / "c")
    policy = read_policy(tmp_path / "c")
    assert policy.execute == 4 and policy.example_inputs["noise"].shape == (1, 6, 6)
    assert {n: s.history for n, s in policy.sources.items() if s.update == "observation"} == {
        "observation.images.top": 2, "observation.images.wrist": 2, "observation.state": 2}
    assert "lerobot_policy_reach.modeling_reach.ReachPolicy" in policy.origin["code"]


@pytest.mark.parametrize("kind", ["reach", "told", "vla_jepa"])
def test_without_weights_the_stages_are_the_same(kind, tmp_path):
    """Also where the code selects tokens by a mask."""
    write(kind, tmp_path / "c")
    options = CheckpointOptions(**(FOR_ONE if kind == "vla_jepa" else {}))
    with_weights, without = (load_policy(str(tmp_path / "c"), weights=w, options=options) for w in (True, False))
    assert with_weights.sources == without.sources and with_weights.execute == without.execute
    assert {n: t.shape for n, t in with_weights.example_inputs.items()} == {
        n: t.shape for n, t in without.example_inputs.items()}


def test_lerobots_temporal_ensemble_is_the_runtimes(tmp_path):
    write("told", tmp_path / "c", temporal_ensemble_coeff=0.05, n_action_steps=1)
    policy = read_policy(tmp_path / "c")
    assert policy.ensemble == 0.05 and policy.execute == 1


def test_a_greeting_before_the_instruction_leaves_the_tokens_to_the_host(tmp_path):
    folder = tmp_path / "c"
    write("told", folder, greeting="robot, ")
    policy, tokens = read_policy(folder), tokens_of(open_checkpoint(folder)[0], TASK)
    assert not policy.texts
    encoded = policy.encoding.encode(TASK, {})
    assert set(encoded) == set(tokens) and all(torch.equal(encoded[n], tokens[n]) for n in tokens)
    write("told", tmp_path / "d" / "c")
    plain = tokens_of(open_checkpoint(tmp_path / "d" / "c")[0], "robot, " + TASK)
    assert tokens and all(torch.equal(tokens[n], plain[n]) for n in plain)


HABITS = {  # of the plugin `reach`, and what is said of each
    "remembers": "the policy remembers more than it declares",
    "averages": "select_action combines chunks in a way of its own",
    "blind": "the actions depend on no observation",
    "numpy": "the policy remembers more than it declares",
    "listens": "the instruction reaches the policy by another way than a tokenizer",
}


@pytest.mark.parametrize("habit", HABITS)
def test_what_is_no_function_of_a_graphs_inputs_is_refused(habit, tmp_path):
    write("reach", tmp_path / "c", habit=habit)
    with pytest.raises(SourceError, match=HABITS[habit]):
        vc.build(tmp_path / "c", out=tmp_path / "a.vlab")


def test_a_branch_on_an_observation_is_refused_with_the_plugins_line(tmp_path):
    write("reach", tmp_path / "c", habit="branches")
    with pytest.raises(CaptureError, match="the value of an input decides") as caught:
        vc.build(tmp_path / "c", out=tmp_path / "a.vlab")
    assert "modeling_reach.py" in caught.value.where and "states.sum() > 0" in caught.value.where


TOKENS = {  # of the plugin `told`, and why its tokens are no inputs
    "no length": ({"max_length": None}, "their number depends on the instruction"),
    "numbers": ({"ids": "lists"}, "Python numbers"),
    "padding counts": ({"mean_of": "places"}, "padding is not masked"),
}


@pytest.mark.parametrize("case", TOKENS)
def test_tokens_that_cannot_be_inputs_are_refused_unless_the_instruction_is_given(case, tmp_path):
    settings, why = TOKENS[case]
    policy = write("told", tmp_path / "c", **settings)
    with pytest.raises(SourceError) as caught:
        vc.build(tmp_path / "c", out=tmp_path / "a.vlab")
    assert why in caught.value.why
    bundle = vc.build(tmp_path / "c", out=tmp_path / "b.vlab", options=CheckpointOptions(instruction=TASK))
    got, want = both(bundle, tmp_path / "c", policy, 6)
    assert share_of_spread(got, want) < SHARE


PLANNING = {"tdmpc": {}, "tdmpc-two-critics": {"q_ensemble_size": 2, "n_action_repeats": 1, "n_action_steps": 3,
                                             "n_pi_samples": 0}}


@pytest.mark.parametrize("case", variants(PLANNING, ["tdmpc-two-critics"]))
def test_planning_starts_from_the_last_plan(case, tmp_path, record_property):
    """Over an episode: whoever runs the bundle hands one chunk's plan to the next."""
    folder, chunks = tmp_path / "pretrained_model", 3
    policy = write("tdmpc", folder, **PLANNING[case])
    bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab"))
    count = max(policy.config.n_action_steps, policy.config.n_action_repeats)
    loop, kept, got, forgetful, want = lerobot_loop(folder, policy), np.zeros((5, 1, 6), np.float32), [], [], []
    with vc.Session(bundle.path) as session, vc.Session(bundle.path) as other:
        for chunk in range(chunks):
            seen, noise = observation(policy, chunk), noise_of(bundle, chunk)
            want += [loop.act(seen, noise if k == 0 else None) for k in range(count)]
            for runs, actions, last in ((session, got, kept), (other, forgetful, np.zeros_like(kept))):
                for name, value in seen.items():
                    runs.write(name, value[None])
                for name, tensor in noise.items():
                    runs.write(name, tensor.numpy())
                runs.write("planner.mean", last)
                runs.step()
                actions += [runs.pop().copy() for _ in range(count)]
            kept = np.array(session.read("planner.mean.next"))
    share = share_of_spread(np.stack(got), np.stack(want))
    assert share < SHARE
    assert share_of_spread(np.stack(forgetful), np.stack(want)) > 100 * SHARE, "control: the plan matters"
    assert "planner.mean.next" in bundle.manifest["provenance"]["origin"]["memory"]
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy=case, oracle="LeRobot 0.6.1",
             seconds=seconds)


def changed(path, change) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
FILES = {  # the file, what is changed, what is said
    "a newer field": ("config.json", lambda d: d.update(horizon_scale=2), 'the field "horizon_scale"'),
    "a newer value": ("config.json", lambda d: d.update(chunk_size="as many as fit"),
                      'LeRobot cannot read "chunk_size"'),
    "a newer setting": (POST, lambda d: d["steps"][0]["config"].update(softly=True),
                        'the step "reach_limit" has the setting "softly"'),
    "a newer setting of LeRobot": (PRE, lambda d: d["steps"][4]["config"].update(clip=3.0),
                                   'the step "normalizer_processor" has the setting "clip"'),
    "an unregistered step": (PRE, lambda d: d["steps"].append({"registry_name": "reach_tilt", "config": {}}),
                             'the step "reach_tilt", which nobody registered'),
    "a step of a class": (PRE, lambda d: d["steps"].append({"class": "elsewhere.Tilt", "config": {}}),
                          'the step "elsewhere.Tilt", which nobody registered'),
    "no un-normaliser": (POST, lambda d: d["steps"].pop(1), "no step unnormalizer_processor"),
    "an unknown type": ("config.json", lambda d: d.update(type="reech"),
                        'no frontend reads checkpoints of type "reech"'),
    "another camera": ("config.json", lambda d: d["input_features"].update(
        {"observation.images.side": {"type": "VISUAL", "shape": [3, 64, 64]}}),
        'the preprocessor has no "observation.images.side"'),
}


@pytest.mark.parametrize("case", FILES)
def test_what_nobody_here_knows_is_refused_by_name(case, tmp_path):
    file, change, said = FILES[case]
    write("reach", tmp_path / "c")
    changed(tmp_path / "c" / file, change)
    with pytest.raises(SourceError, match=said):
        vc.build(tmp_path / "c", out=tmp_path / "a.vlab")


def test_a_type_that_cannot_be_compiled_says_why(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"type": "lingbot_va"}), encoding="utf-8")
    with pytest.raises(SourceError, match='checkpoints of type "lingbot_va" cannot be compiled'):
        open_checkpoint(tmp_path)


def test_weights_that_are_missing_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    write("told", tmp_path / "c")
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if not n.startswith("text.encoder.layer.1.")},
              tmp_path / "c" / "model.safetensors")
    with pytest.raises(SourceError, match="does not fit config.json"):
        vc.build(tmp_path / "c", out=tmp_path / "a.vlab")


NUMBERS = {  # of a weight, and what is said
    "integers": (lambda t: (t * 100).to(torch.int8), "is of I8"),
    "not finite": (lambda t: torch.full_like(t, torch.nan), "is not finite"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_no_training_writes_are_refused(case, tmp_path):
    from safetensors.torch import load_file, save_file

    change, said = NUMBERS[case]
    write("reach", tmp_path / "c")
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    name = next(n for n, t in tensors.items() if t.dim() == 2)
    save_file(tensors | {name: change(tensors[name])}, tmp_path / "c" / "model.safetensors")
    with pytest.raises(SourceError, match=f"{name} {said}"):
        read_policy(tmp_path / "c")


def test_an_instruction_is_an_option_only_where_it_is_no_input(tmp_path):
    from tests.environments.lerobot.checkpoints import write as write_with_adapter

    write_with_adapter("act", tmp_path / "c")
    with pytest.raises(SourceError, match="--instruction does not apply"):
        open_checkpoint(tmp_path / "c", options=CheckpointOptions(instruction=TASK))


REGISTERS = """
import dataclasses
from lerobot.configs.policies import PreTrainedConfig

@PreTrainedConfig.register_subclass("ends")
@dataclasses.dataclass
class Ends(PreTrainedConfig):
    pass

raise ImportError('no camera here')
"""


@pytest.mark.parametrize("ends", ["raise ImportError('no camera here')", "import sys; sys.exit('no camera here')",
                                  REGISTERS])
def test_a_plugin_that_ends_at_its_import_is_named(ends, tmp_path):
    """In a process of its own: what LeRobot registers is asked once."""
    (tmp_path / "lerobot_policy_ends-1.dist-info").mkdir()
    (tmp_path / "lerobot_policy_ends-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lerobot_policy_ends\nVersion: 1\n", encoding="utf-8")
    (tmp_path / "lerobot_policy_ends.py").write_text(ends, encoding="utf-8")
    (tmp_path / "config.json").write_text('{"type": "ends"}', encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "vlacompile.cli.main", "plan", str(tmp_path)],
                          capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
    assert done.returncode == 4 and 'checkpoints of type "ends"' in done.stderr
    assert "lerobot_policy_ends" in done.stderr and "no camera here" in done.stderr
