"""A policy that is given texts: built, run from text, and compared with the ids of the original tokenizer."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from tests.samples.small_tokenizers import byte_bpe
from vlacompile.cli.main import main
from vlacompile.compiler.staging.known_instructions import compile_instructions
from vlacompile.policy.text import read_instructions
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.plan import Stored
from vlart.bundle.plan.text import parse_plan, plan_text
from vlart.errors import ConfigError, ParityError, RuntimeFailure, SourceError
from vlart.runtime.library import libvlart_path

TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"


def tokenizer():
    """Few enough tokens for the policy's embedding."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["[PAD]", "[UNK]", "put", "the", "bowl", "on", "##s", "plate", "!"]
    it = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    it.normalizer, it.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return it


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    policy = replace(policies.late_fusion(),
                     texts={TOKENS: vc.Text(tokenizer().to_str(), MASK, vc.Fit(pad=0), max_bytes=64,
                                          examples=("put the bowls on the plate",))})
    return vc.build(policy, out=tmp_path_factory.mktemp("text") / "spoken.vlab")


def inputs() -> dict[str, np.ndarray]:
    return {n: t.numpy() for n, t in policies.late_fusion().example_inputs.items()}


def ids_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    ids = tokenizer().encode(text).ids
    pad = inputs()[TOKENS].shape[1] - len(ids)
    return np.array([ids + [0] * pad]), np.array([[True] * len(ids) + [False] * pad])


def act(session: vc.Session, given: dict[str, np.ndarray]) -> np.ndarray:
    for name, array in given.items():
        session.write(name, array)
    session.step()
    return session.read("action")


def test_a_text_gives_what_its_ids_give(bundle):
    with vc.Session(bundle.path) as session:
        session.write_text(TOKENS, "Put the bowls on!")
        rest = {n: a for n, a in inputs().items() if n not in (TOKENS, MASK)}
        spoken = act(session, rest)
        ids, mask = ids_of("Put the bowls on!")
        np.testing.assert_array_equal(session.read(TOKENS), ids)
        np.testing.assert_array_equal(session.read(MASK), mask)
        session.write_text(TOKENS, "the plate")
        other = act(session, {})
        runs = session.stats().runs()
        session.write_text(TOKENS, "the  PLATE")
        session.step()
        assert session.stats().runs() == runs
    with vc.Session(bundle.path) as session:
        np.testing.assert_array_equal(act(session, rest | {TOKENS: ids, MASK: mask}), spoken)
    assert np.abs(other - spoken).max() > 1e-4
    want = policies.late_fusion().infer(**{n: torch.from_numpy(a)
                                           for n, a in (rest | {TOKENS: ids, MASK: mask}).items()})
    np.testing.assert_allclose(spoken, want["action"].detach().numpy(), atol=1e-4)


def test_refused_texts_leave_the_sources(bundle):
    with vc.Session(bundle.path) as session:
        session.write_text(TOKENS, "the plate")
        for text, why in (("put " * 7, "they are 7, the policy takes 6"), ("put " * 17, "68 bytes, at most 64")):
            with pytest.raises(RuntimeFailure) as error:
                session.write_text(TOKENS, text)
            assert error.value.status == "TEXT_REFUSED" and why in error.value.why
            assert f'"{TOKENS}"' in error.value.where
        np.testing.assert_array_equal(session.read(TOKENS), ids_of("the plate")[0])
        with pytest.raises(RuntimeFailure, match="no tokenizer") as error:
            session.write_text(MASK, "put")
        assert error.value.status == "NOT_FOUND"


def test_the_plan_has_the_text_and_prints_it(bundle, tmp_path):
    text = plan_text(bundle.plan)
    assert parse_plan(text) == bundle.plan
    (tmp_path / "plan.bin").write_bytes(plan_bytes(bundle.plan))
    assert read_plan(tmp_path / "plan.bin") == bundle.plan
    index = bundle.plan.value_index
    line = f"text %{index(TOKENS)} mask=%{index(MASK)} tokenizer={bundle.plan.texts[0].tokenizer} max_bytes=64"
    assert line in text.splitlines() and 'tokenizers/0.bin" tokenizer bytes=' in text
    dump = libvlart_path().parent / "vlart-dump"
    done = subprocess.run([dump, bundle.path], capture_output=True, text=True, check=True)
    assert done.stdout == text


def test_what_was_checked_is_in_the_manifest(bundle):
    notes = bundle.manifest["provenance"]["notes"]
    assert any(n.startswith(f"tokenizer of {TOKENS}: ") and "equal to the original's" in n for n in notes)


def test_a_damaged_table_is_refused(bundle, tmp_path):
    root = tmp_path / "damaged.vlab"
    shutil.copytree(bundle.path, root)
    path = root / "tokenizers/0.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for verify in (True, False):  # also where checksums of files are not compared: the table has its own
        with pytest.raises(RuntimeFailure) as error:
            vc.Session(root, verify_files=verify)
        assert error.value.status == "CORRUPT" and "tokenizers/0.bin" in error.value.where


@pytest.mark.parametrize("text, mask, why", [("image", None, "no such source"), (MASK, None, "it is bool[1,6]"),
                                             (TOKENS, "observation.state", "it is f32[1,9]")])
def test_texts_must_fit_the_sources(text, mask, why):
    with pytest.raises(SourceError) as error:
        replace(policies.late_fusion(), texts={text: vc.Text("{}", mask)})
    assert why in error.value.why


def test_a_tokenizer_that_is_not_supported_stops_the_build(tmp_path):
    original = byte_bpe()
    from tokenizers import pre_tokenizers

    original.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    policy = replace(policies.late_fusion(), texts={TOKENS: vc.Text(original.to_str(), MASK)})
    with pytest.raises(SourceError, match="UnicodeScripts"):
        vc.build(policy, out=tmp_path / "no.vlab")
    assert not (tmp_path / "no.vlab").exists()


def test_the_recipe_may_leave_tokenising_to_the_host(tmp_path):
    from vlacompile.recipe.recipe import load_recipe

    (tmp_path / "host.toml").write_text('name = "x"\ndescription = "x"\n[text]\ntokenize = "host"\n')
    original = byte_bpe()
    from tokenizers import pre_tokenizers

    original.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    policy = replace(policies.late_fusion(), texts={TOKENS: vc.Text(original.to_str(), MASK)})
    bundle = vc.build(policy, recipe=str(tmp_path / "host.toml"), out=tmp_path / "host.vlab")
    assert bundle.plan.texts == () and not (bundle.path / "tokenizers").exists()
    (tmp_path / "odd.toml").write_text('name = "x"\ndescription = "x"\n[text]\ntokenize = "hots"\n')
    with pytest.raises(ConfigError, match="hots"):
        load_recipe(str(tmp_path / "odd.toml"))


# ---- instructions known in advance -----------------------------------------------------------------------------------

KNOWN = ("put the bowls on", "the plate")


@pytest.fixture(scope="module")
def library(tmp_path_factory, every_stage):
    policy = replace(policies.late_fusion(), texts={TOKENS: vc.Text(tokenizer().to_str(), MASK, vc.Fit(pad=0))})
    out = tmp_path_factory.mktemp("library") / "known.vlab"
    return vc.build(policy, recipe=str(every_stage), out=out, instructions=KNOWN)


def language_stages(bundle) -> set[str]:
    own = {bundle.plan.value_index(TOKENS), bundle.plan.value_index(MASK)}
    return {s.name for s in bundle.plan.stages if s.depends and set(s.depends) <= own}


def test_a_known_instruction_runs_no_language_stage(library):
    language = language_stages(library)
    assert language
    rest = {n: a for n, a in inputs().items() if n not in (TOKENS, MASK)}
    for text in KNOWN:
        with vc.Session(library.path) as session:
            session.write_text(TOKENS, text)
            stored = act(session, rest)
            runs = session.stats().runs()
            assert all(runs[name] == 0 for name in language) and sum(runs.values()) > 0
            np.testing.assert_array_equal(session.read(TOKENS), ids_of(text)[0])
            session.write_text(TOKENS, "bowl")  # not known: by the tokenizer and the stages
            other = act(session, {})
            assert all(session.stats().runs()[name] == 1 for name in language)
            session.write_text(TOKENS, text)
            np.testing.assert_array_equal(act(session, {}), stored)
            assert all(session.stats().runs()[name] == 1 for name in language)
        ids, mask = ids_of(text)
        with vc.Session(library.path) as session:
            np.testing.assert_allclose(act(session, rest | {TOKENS: ids, MASK: mask}), stored, atol=1e-5)
        assert np.abs(other - stored).max() > 1e-4


def test_instructions_are_in_the_plan(library):
    assert [i.text for i in library.plan.instructions] == list(KNOWN)
    text = plan_text(library.plan)
    assert parse_plan(text) == library.plan and read_plan(library.path / "plan.bin") == library.plan
    done = subprocess.run([libvlart_path().parent / "vlart-dump", library.path], capture_output=True, text=True,
                          check=True)
    assert done.stdout == text


def without_tokenizer(library, tmp_path, instructions):
    """The same bundle with other instructions and no tokenizer."""
    root = tmp_path / "no_tokenizer.vlab"
    shutil.copytree(library.path, root)
    (root / "plan.bin").write_bytes(plan_bytes(replace(library.plan, texts=(), instructions=instructions)))
    return root


def test_an_unknown_text_without_a_tokenizer_names_the_known_ones(library, tmp_path):
    with vc.Session(without_tokenizer(library, tmp_path, library.plan.instructions)) as session:
        session.write_text(TOKENS, KNOWN[0])
        with pytest.raises(RuntimeFailure) as error:
            session.write_text(TOKENS, "fold the towel")
        assert error.value.status == "NOT_FOUND" and error.value.why == f'known: "{KNOWN[0]}" "{KNOWN[1]}"'


@pytest.mark.parametrize("change, why", [
    (lambda i, plan: replace(i, stored=i.stored[1:]), "its source is not stored"),
    (lambda i, plan: replace(i, stored=i.stored[:-1]), "an output of a stage is missing"),
    (lambda i, plan: replace(i, stored=(*i.stored, Stored(plan.value_index("action"), 0))),
     "another shape than its weight"),
    (lambda i, plan: replace(i, stored=(Stored(i.stored[0].value, i.stored[-1].weight), *i.stored[1:])),
     "another shape"),
])
def test_instructions_are_checked_when_a_bundle_is_opened(library, tmp_path, change, why):
    first = change(library.plan.instructions[0], library.plan)
    with pytest.raises(RuntimeFailure) as error:
        vc.Session(without_tokenizer(library, tmp_path, (first,)))
    assert error.value.status == "CORRUPT" and why in error.value.why and "instructions[0]" in error.value.where


@pytest.fixture(scope="module")
def only(tmp_path_factory, every_stage):
    """No other text than KNOWN will come."""
    policy = replace(policies.late_fusion(), texts={TOKENS: vc.Text(tokenizer().to_str(), MASK, vc.Fit(pad=0))})
    out = tmp_path_factory.mktemp("only") / "only.vlab"
    return vc.build(policy, recipe=str(every_stage), out=out, instructions=KNOWN, only_instructions=True)


def test_stages_of_the_text_leave_a_bundle_of_known_instructions(library, only):
    language = language_stages(library)
    assert language and {s.name for s in only.plan.stages if s.backend == "library"} == language
    assert not any((only.path / f"stages/{name}.onnx").exists() for name in language)
    assert not (only.path / "tokenizers").exists() and only.bytes < library.bytes
    assert all(not s.initializers for s in only.plan.stages if s.name in language)
    rest = {n: a for n, a in inputs().items() if n not in (TOKENS, MASK)}
    with vc.Session(library.path) as whole, vc.Session(only.path) as session:
        for text in KNOWN:
            whole.write_text(TOKENS, text)
            session.write_text(TOKENS, text)
            np.testing.assert_array_equal(act(session, rest), act(whole, rest))
        assert all(session.stats().runs()[name] == 0 for name in language)
        ids, mask = ids_of(KNOWN[0])  # by its ids it is found as well
        by_ids = act(session, rest | {TOKENS: ids, MASK: mask})
        assert all(session.stats().runs()[name] == 1 for name in language)
        whole.write_text(TOKENS, KNOWN[0])
        np.testing.assert_array_equal(by_ids, act(whole, rest))


def test_another_text_than_the_known_ones_is_refused(only):
    rest = {n: a for n, a in inputs().items() if n not in (TOKENS, MASK)}
    with vc.Session(only.path) as session:
        with pytest.raises(RuntimeFailure) as error:
            session.write_text(TOKENS, "fold the towel")
        assert error.value.status == "NOT_FOUND" and KNOWN[1] in error.value.why
        ids, mask = ids_of("bowl")
        with pytest.raises(RuntimeFailure) as error:
            act(session, rest | {TOKENS: ids, MASK: mask})
        assert error.value.status == "TEXT_REFUSED" and KNOWN[0] in error.value.why
        session.write_text(TOKENS, KNOWN[0])  # and it goes on with one that it knows
        assert np.isfinite(act(session, rest)).all()


def test_inspect_says_what_is_known(library, only, capsys):
    for bundle, says in ((library, f"2 precomputed; any text for {TOKENS}"),
                         (only, "2 precomputed, no others accepted: language is a lookup")):
        assert main(["inspect", str(bundle.path)]) == 0
        assert says in " ".join(capsys.readouterr().out.split())


def test_nothing_can_leave_where_nothing_is_of_the_text_alone(tmp_path):
    with pytest.raises(ConfigError, match="no stage can be dropped") as error:
        vc.build(policies.late_fusion(), out=tmp_path / "no.vlab", only_instructions=True)
    assert "no instructions" in error.value.why


def stage_of_library(plan, **changes):
    at = next(i for i, s in enumerate(plan.stages) if s.backend == "library")
    return at, replace(plan, stages=(*plan.stages[:at], replace(plan.stages[at], **changes), *plan.stages[at + 1:]))


@pytest.mark.parametrize("change, why", [
    (lambda p: replace(p, instructions=()), "there are no instructions"),
    (lambda p: stage_of_library(p, iterations=2)[1], "is a loop"),
    (lambda p: replace(p, stages=tuple(replace(s, backend="library", artefact=None, initializers=())
                                       for s in p.stages)), "depends on more than what is stored"),
])
def test_a_stage_without_an_engine_is_checked_when_a_bundle_is_opened(only, tmp_path, change, why):
    root = tmp_path / "odd.vlab"
    shutil.copytree(only.path, root)
    (root / "plan.bin").write_bytes(plan_bytes(change(only.plan)))
    with pytest.raises(RuntimeFailure) as error:
        vc.Session(root)
    assert error.value.status == "CORRUPT" and why in error.value.why


def test_values_that_are_not_those_of_the_stages_stop_the_build(library, monkeypatch, tmp_path, every_stage):
    from vlacompile.phases import assemble

    def wrong(*arguments):
        return tuple(replace(k, values={n: a + 0.01 if a.dtype.kind == "f" else a for n, a in k.values.items()})
                     for k in compile_instructions(*arguments))

    monkeypatch.setattr(assemble, "compile_instructions", wrong)
    policy = replace(policies.late_fusion(), texts={TOKENS: vc.Text(tokenizer().to_str(), MASK, vc.Fit(pad=0))})
    with pytest.raises(ParityError, match="compiled in advance"):
        vc.build(policy, recipe=str(every_stage), out=tmp_path / "no.vlab", instructions=KNOWN[:1])
    assert not (tmp_path / "no.vlab").exists()


def test_what_cannot_be_an_instruction_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="declares 0 texts"):
        vc.build(policies.late_fusion(), out=tmp_path / "no.vlab", instructions=KNOWN)
    with pytest.raises(ConfigError, match="control character"):
        vc.build(policies.late_fusion(), out=tmp_path / "no.vlab", instructions=("two\nlines",))
    (tmp_path / "known.txt").write_text("put the bowl\n\n  \nthe plate\nput the bowl\n")
    assert read_instructions(tmp_path / "known.txt") == ("put the bowl", "the plate")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_instructions(tmp_path / "missing.txt")
