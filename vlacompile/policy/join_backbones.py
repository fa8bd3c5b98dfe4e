"""Joins several policies into one: a session runs one backbone at a time, and common work is shared.

Owns which inputs of the policies are the same. That equal work is computed and stored once follows from the passes
(CSE); which stage serves which backbone follows from the graph (compiler/staging/partition.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import torch

from vlacompile.policy.carried import computed
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Text
from vlart.errors import SourceError, nearest

MOST = 4  # backbones per bundle and per router table: VLART_MAX_BACKBONES


def join(backbones: Mapping[str, Policy], name: str | None = None, *, apart: Collection[str] = ()) -> Policy:
    """Several policies as one: its output `<backbone>.<output>` is that backbone's action chunk.

    backbones: {name: policy}, the default first. Inputs of the same name, type and shape are one input, unless they
    are filled from texts by different tokenizers, or are named in `apart`: these become `<backbone>.<input>`, as what a
    backbone carries from step to step does; it begins anew after steps of another one. name: of
    the joined policy; None: their names, joined by "+".
    Raises SourceError if the policies give actions of different kinds, or consume them differently.
    """
    where = f"vlacompile.join({', '.join(backbones)})"
    _check(backbones, where)
    inputs = {n: p.sources for n, p in backbones.items()}
    for one in apart:
        known = {s for sources in inputs.values() for s in sources}
        if one not in known:
            raise SourceError(f'no input is called "{one}"', where=f"{where}, apart", why=nearest(one, known),
                              fix="name inputs whose meaning differs between the backbones")
    own = _own_names(backbones, frozenset(apart), where)
    sources: dict[str, Source] = {}
    examples: dict[str, torch.Tensor] = {}
    texts: dict[str, Text] = {}
    for n, p in backbones.items():
        sources |= {own[n][s]: source for s, source in p.sources.items()}
        examples = {own[n][s]: t for s, t in p.example_inputs.items()} | examples
        for s, text in p.texts.items():
            texts[own[n][s]] = text if text.mask is None else replace(text, mask=own[n][text.mask])
    functions = {n: p.observe for n, p in backbones.items()}
    outputs = {n: p.outputs[0] for n, p in backbones.items()}
    names = {n: f"{n}.{outputs[n]}" for n in backbones}

    kept = {n: p.carried for n, p in backbones.items()}

    def observe(**given: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for n, function in functions.items():
            inputs = {s: given[o] for s, o in own[n].items()} | {c: given[f"{n}.{c}"] for c in kept[n]}
            values = function(**inputs)
            found |= {f"{n}.{v}": values[v] for v in (outputs[n], *(c.output for c in kept[n].values()))}
        return found

    first = next(iter(backbones.values()))
    return Policy(name or "+".join(p.name for p in backbones.values()), observe, sources, examples,
                  outputs=tuple(names.values()), execute=first.execute, ensemble=first.ensemble,
                  calibration=_calibration(backbones, own, where), decoder=first.decoder,
                  texts=texts, backbones=names,
                  origin={f"{n}, {title}": text for n, p in backbones.items() for title, text in p.origin.items()},
                  carried={f"{n}.{c}": replace(carried, output=f"{n}.{carried.output}",
                                               initial=_of_own(carried.initial, own[n]))
                           for n, p in backbones.items() for c, carried in p.carried.items()})


def _of_own(initial: torch.Tensor | Callable[..., torch.Tensor],
            own: Mapping[str, str]) -> torch.Tensor | Callable[..., torch.Tensor]:
    """The first content of a carried value of one backbone, of the joined policy's inputs. own: {input: joined name}"""
    if isinstance(initial, torch.Tensor):
        return initial

    def first(**given: torch.Tensor) -> torch.Tensor:
        return computed(initial, {s: given[o] for s, o in own.items()})

    return first


def require_one_shape(chunks: Mapping[str, tuple[int, ...]]) -> None:
    """chunks: {backbone: shape of its action chunk}. Raises SourceError where they differ."""
    if len(set(chunks.values())) > 1:
        raise SourceError("the backbones give action chunks of different shapes",
                          where=f"vlacompile.join({', '.join(chunks)})",
                          why=", ".join(f"{name}: {list(shape)}" for name, shape in chunks.items()),
                          fix="they feed one action queue: give all of them the same shape, or compile them apart")


def _check(backbones: Mapping[str, Policy], where: str) -> None:
    if not 2 <= len(backbones) <= MOST or not all(n and n.replace("_", "a").isalnum() for n in backbones):
        raise SourceError(f"{len(backbones)} backbones cannot be joined", where=where,
                          why=f"2 to {MOST} can be joined, named with letters, digits and underscores",
                          fix="join({'light': one, 'heavy': another})")
    first = next(iter(backbones.values()))
    for n, p in backbones.items():
        for what in ("execute", "ensemble", "decoder"):
            if getattr(p, what) != getattr(first, what):
                raise SourceError(f'the actions of "{n}" are not consumed as the first backbone\'s', where=where,
                                  why=f"{what}: {getattr(p, what)!r} is not {getattr(first, what)!r}",
                                  fix="backbones share the action queue: give all of them the same, or compile "
                                      "them separately")
        reason = ("it has a declared loop: write it inside observe" if p.loop is not None else
                  f"it has {len(p.outputs)} outputs, but only one can become actions" if len(p.outputs) != 1 else
                  "some of its inputs are filled from its previous chunk" if p.guidance is not None else
                  "it is joined already" if p.backbones else None)
        if reason is not None:
            raise SourceError(f'"{n}" cannot be joined', where=where, why=reason, fix="give a policy of one function")


def _own_names(backbones: Mapping[str, Policy], apart: frozenset[str], where: str) -> dict[str, dict[str, str]]:
    """{backbone: {its input: the joined policy's}}"""
    users: dict[str, list[str]] = {}
    for n, p in backbones.items():
        for s in p.sources:
            users.setdefault(s, []).append(n)
    split = set(apart)
    for s, names in users.items():
        policies = [backbones[n] for n in names]
        texts = {(t.tokenizer, t.mask, t.fit, t.ending) if (t := p.texts.get(s)) else None for p in policies}
        if len(texts) > 1:
            split |= {s, *(t.mask for p in policies if (t := p.texts.get(s)) and t.mask is not None)}
    for s, names in users.items():
        kinds = {n: (backbones[n].sources[s], tuple(backbones[n].example_inputs[s].shape),
                     backbones[n].example_inputs[s].dtype)
                 for n in names}
        if s not in split and len(set(kinds.values())) > 1:
            a, b = next((x, y) for x in kinds for y in kinds if kinds[x] != kinds[y])
            raise SourceError(f'"{s}" differs between "{a}" and "{b}"', where=where,
                              why=f"{kinds[a]} is not {kinds[b]}",
                              fix=f'make them the same, or join(..., apart=("{s}",))')
    return {n: {s: f"{n}.{s}" if s in split and len(users[s]) > 1 else s for s in p.sources}
            for n, p in backbones.items()}


def _calibration(backbones: Mapping[str, Policy], own: Mapping[str, Mapping[str, str]], where: str) -> tuple[dict, ...]:
    """The calibration observations of all policies, merged frame by frame; empty if none has any."""
    counts = {n: len(p.calibration) for n, p in backbones.items()}
    if len(set(counts.values())) > 1:
        raise SourceError("the backbones have different numbers of recorded observations", where=where,
                          why=", ".join(f"{n}: {c}" for n, c in counts.items()),
                          fix="give all of them the same, or none")
    joined = []
    for i in range(next(iter(counts.values()))):
        row: dict[str, torch.Tensor] = {}
        for n, p in backbones.items():
            for s, tensor in p.calibration[i].items():
                known = row.setdefault(own[n][s], tensor)
                if known is not tensor and not torch.equal(known, tensor):
                    raise SourceError(f'observation {i} of "{n}" differs from the others', where=f"{where}, "
                                                                                                 "calibration",
                                      why=f'"{s}" differs',
                                      fix="give all backbones the same observations in the same order")
        joined.append(row)
    return tuple(joined)
