"""What `inspect` says of rules of emission and of what crosses between stages."""

from __future__ import annotations

from vlacompile.cli.emission_tables import MOST, attention_rows, boundary_rows, rule_rows


def edge(value: str, size: int, why: str = "") -> dict:
    return {"value": value, "producer": "vision", "readers": ["fusion"], "bytes": size, "casts": 0 if why else 2,
            "added": 0, "why": why}


def test_a_rule_is_told_once_with_its_stages_and_worth():
    fired = [{"stage": s, "rule": "tensorrt.fp32_sums", "count": n, "worth": "slower"} for s, n in (("a", 2), ("b", 3))]
    assert rule_rows({"emission": fired}) == [("tensorrt.fp32_sums", "2 in a, 3 in b", "slower")]
    assert rule_rows({}) == []


def test_values_are_worth_what_is_written_and_read_less():
    provenance = {"boundaries": [edge("a", 4000), edge("b", 100, "it is computed in f32")],
                  "target": {"rates": {"fp16": {"gbps": 4.0}}}}
    (rule, where, worth), = rule_rows(provenance)
    assert (rule, where) == ("precision.fp16_values", "1 values")
    assert worth == "2.0 kB less, modelled 1.0 us of writing and reading, 2 casts less"
    (_, _, elsewhere), = rule_rows({**provenance, "target": {"rates": None}})
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
