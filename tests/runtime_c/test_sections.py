"""Damage of every section of every file that the runtime reads, enumerated from the layout: a section without a sample,
or one that no rule looks at, fails here."""

from __future__ import annotations

import re
import subprocess

import pytest
from sample_bundles import Flow
from sample_tokenizers import spoken
from vlart_ctypes import Failure, Policy

from tests.runtime_c.running import BUILD, make
from vlart.bundle.format import layout
from vlart.bundle.plan.binary import read_plan
from vlart.errors import VlaError
from vlart.verify.frames import read_frames

# {kind of file: (its sections, samples that hold something of each between them)}
KINDS = {
    "plan": (layout.PLAN_SECTIONS, ("flow/plan.bin", "recall/plan.bin", "lookup/plan.bin", "realtime/plan.bin",
                                    "spoken/plan.bin", "board/plan.bin", "guarded/plan.bin", "laned/plan.bin",
                                    "paired/plan.bin", "bucketed/plan.bin", "reactive/plan.bin",
                                    "limited_clip/plan.bin",
                                    "ending/plan.bin", "branches/plan.bin", "adding/plan.bin")),
    "frames": (layout.FRAMES_SECTIONS, ("reactive/golden/golden.bin", "flow/golden/golden.bin")),
    "routing": (layout.ROUTING_SECTIONS, ("routing/table.bin",)),
    "tokenizer": (layout.TOKENIZER_SECTIONS, ("word_piece.bin", "byte_pairs.bin")),
    "lock": (layout.LOCK_SECTIONS, ("lock.bin",)),
}
# Any number will do there, and nothing but its checksum says which was meant: what tensors hold, what merges first.
CONTENT = {("frames", "blob"), ("tokenizer", "merge_ranks")}
SECTIONS = [(kind, section) for kind, (sections, _) in KINDS.items() for section in sections]


@pytest.fixture(scope="module")
def samples():
    make(f"BUILD={BUILD}", str(BUILD / "fuzz_open"), "samples")
    return BUILD / "samples"


@pytest.fixture(scope="module")
def damage(samples):
    """{kind: {section or part: [bytes, flips, refused, refused with right checksums], summed over the samples}}"""
    found: dict[str, dict[str, list[int]]] = {}
    for kind, (_, files) in KINDS.items():
        rows = found.setdefault(kind, {})
        for file in files:
            done = subprocess.run([BUILD / "fuzz_open", "-t", samples / "word_piece.bin", "--damage", samples / file],
                                  capture_output=True, text=True, check=True, timeout=300)
            for part, *numbers in re.findall(r"^(\w+) bytes (\d+) flips (\d+) refused (\d+) sealed_refused (\d+)$",
                                             done.stdout, re.MULTILINE):
                name = layout.SECTIONS[int(part)][0] if part.isdigit() else part
                rows[name] = [a + int(b) for a, b in zip(rows.get(name, [0] * 4), numbers, strict=True)]
    return found


def test_every_section_belongs_to_a_file():
    listed = {section for _, section in SECTIONS}
    assert listed == {name for name, _, _ in layout.SECTIONS.values()}


@pytest.mark.parametrize("kind, section", SECTIONS, ids=lambda x: x)
def test_a_flipped_bit_of_a_section_is_refused(damage, kind, section):
    """By the checksum; and with right checksums, by a rule of the reader for at least one of its bits."""
    size, flips, refused, sealed = damage[kind][section]
    assert size > 0, f"no sample holds anything of {section}: add one to KINDS"
    assert refused == flips == 8 * size
    assert (sealed > 0) != ((kind, section) in CONTENT), f"{sealed} of {flips} flips of {section} break a rule"


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused(damage, kind):
    for part in ("truncations", "header", "table"):
        _, flips, refused, _ = damage[kind][part]
        assert refused == flips > 0


READERS = {"plan": read_plan, "frames": read_frames}


@pytest.mark.parametrize("kind", READERS)
def test_pythons_readers_refuse_the_same(samples, tmp_path, kind):
    for file in KINDS[kind][1]:
        data = (samples / file).read_bytes()
        path = tmp_path / "damaged.bin"
        READERS[kind](samples / file)
        cases = [data[:n] for n in range(0, len(data), 61)]
        cases += [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1:] for at in range(0, len(data), 7)]
        for case in cases:
            path.write_bytes(case)
            with pytest.raises(VlaError):
                READERS[kind](path)


def _positions(size: int) -> list[int]:
    return sorted({*range(min(size, 128)), *range(0, size, max(1, size // 400)), *range(max(0, size - 64), size)})


@pytest.mark.parametrize("name", ["spoken", "flow"])
def test_every_file_of_a_bundle_is_covered(lib, tmp_path, name):
    """plan, golden frames, weights, stages, tokenizers: a bit, a cut, a byte more, another file, none."""
    if name == "spoken":
        bundle = spoken()
    else:
        flow = Flow(2)
        bundle = flow.bundle
        bundle.frame("first", flow.inputs(), flow.reference(flow.inputs()))
    root = bundle.write(tmp_path / name)
    files = sorted(p for p in root.rglob("*") if p.is_file())
    kinds = {p.relative_to(root).parts[0] for p in files}
    assert kinds == {"plan.bin", "stages", "tokenizers" if name == "spoken" else "golden"}
    for path in files:
        data = path.read_bytes()
        cases = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1:] for at in _positions(len(data))]
        cases += [data[:n] for n in _positions(len(data))] + [data + b"\0", b"\0" * len(data), None]
        for case in cases:
            if case == data:
                continue
            path.unlink(missing_ok=True)
            if case is not None:
                path.write_bytes(case)
            with pytest.raises(Failure) as failure, Policy(lib, root):
                pass
            assert failure.value.status in ("CORRUPT", "NOT_A_BUNDLE", "VERSION", "IO", "UNSUPPORTED")
            assert path.name in failure.value.where and failure.value.why and failure.value.fix
        path.write_bytes(data)
        with Policy(lib, root):
            pass
