"""What `inspect` says of rules of emission and of what crosses between stages."""

from __future__ import annotations

from vlacompile.report.emission_rows import MOST, attention_rows, boundary_rows, known_by, rule_rows, unfused_rows


def edge(value: str, size: int, why: str = "") -> dict:
    return {"value": value, "producer": "vision", "readers": ["fusion"], "bytes": size, "casts": 0 if why else 2,
            "added": 0, "why": why}


def test_a_rule_is_told_once_with_its_stages_and_worth():
    fired = [{"stage": s, "rule": "tensorrt.fp32_sums", "count": n, "worth": "slower"} for s, n in (("a", 2), ("b", 3))]
    assert rule_rows({"emission": fired}, {}) == [("tensorrt.fp32_sums", "2 in a, 3 in b", "slower")]
    assert rule_rows({}, {}) == []


def test_a_rule_is_worth_what_the_model_says_of_a_replan():
    """8 MB less in each of ten runs, at 4 GB/s; and 1 GFLOP of a convolution at a quarter of a product's rate."""
    rates = {"gbps": 4.0, "linear_gflops": 1000.0, "conv_gflops": 250.0}
    moved = {"stage": "step", "rule": "a", "count": 1, "worth": "fused", "bytes": 8_000_000}
    cut = {"stage": "vision", "rule": "b", "count": 1, "worth": "published", "conv_operations": 1_000_000_000}
    known = {"emission": [moved, cut], "target": {"rates": {"fp16": rates}}}
    assert [worth for _, _, worth in rule_rows(known, {"step": 10})] == [
        "fused; modelled 20 ms of a replan less", "published; modelled 3 ms of a replan less"]
    assert [w for _, _, w in rule_rows({**known, "target": {"rates": None}}, {})] == ["fused", "published"]


def test_values_are_worth_what_is_written_and_read_less():
    provenance = {"boundaries": [edge("a", 4000), edge("b", 100, "it is computed in f32")],
                  "target": {"rates": {"fp16": {"gbps": 4.0}}}}
    (rule, where, worth), = rule_rows(provenance, {})
    assert (rule, where) == ("precision.fp16_values", "1 values")
    assert worth == "2.0 kB less, modelled 1.0 us of writing and reading, 2 casts less"
    (_, _, elsewhere), = rule_rows({**provenance, "target": {"rates": None}}, {})
    assert elsewhere == "2.0 kB less, 2 casts less"


def test_the_largest_edges_come_first_with_their_type():
    edges = [edge(f"v{i}", 100 * i, "f32" if i % 2 else "") for i in range(1, MOST + 3)]
    rows = boundary_rows({"boundaries": edges})
    assert [r[0] for r in rows] == [f"v{i}" for i in range(MOST + 2, 2, -1)] + ["and 2 smaller"]
    assert rows[0][3:] == ("fp16", str(100 * (MOST + 2) // 2), "2")
    assert rows[1][3:] == ("f32", str(100 * (MOST + 1)), "-")


def test_attentions_that_are_alike_are_one_row_with_its_price():
    one = {"stage": "vision", "node": "n", "heads": 12, "queries": 1024, "keys": 1024, "width": 64, "obstacles": [],
           "doubts": ["fed by a transpose"], "logits_bytes": 1_000_000}
    other = {**one, "stage": "step", "heads": 1, "obstacles": ["one head"], "doubts": []}
    rows = attention_rows({"attentions": [one, one, other, {**one, "doubts": []}],
                           "target": {"rates": {"fp16": {"gbps": 4.0}}}}, {"step": 10})
    assert rows == [("vision", "2", "12x1024x1024x64", "yes; fed by a transpose", "up to 2.00"),
                    ("step", "1", "1x1024x1024x64", "no: one head", "10.00"),
                    ("vision", "1", "12x1024x1024x64", "yes", "-")]
    assert unfused_rows({"attentions": [one, one, other, {**one, "doubts": []}],
                         "target": {"rates": {"fp16": {"gbps": 4.0}}}}, {"step": 10}) == rows[:2]
    assert [line.partition(" ")[0] for line in known_by(rows[:2])] == ["no:", "yes;"]
    assert "TensorRT-RTX 1.7.1" in known_by(rows[1:2])[0] and known_by(rows[2:]) == []
