"""The compiler's input, made by a frontend or factory: an inference function and its declared inputs.

Owns `Source`, `Loop` and `Policy` and their validation. Must not know model families,
graphs or backends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real

import torch

from vlacompile.policy import type_checks as declared
from vlacompile.policy.action_decoding import Decoder, Guidance
from vlacompile.policy.carried import BEGUN, Carried, CarriedInput, first_content, require_fitting
from vlacompile.policy.function_call import check_call, named, tensors
from vlacompile.policy.host_encoding import HostEncoding
from vlacompile.policy.iterations import iterations
from vlacompile.policy.text import Text, TextBuckets
from vlart.errors import CaptureError, SourceError, nearest
from vlart.vocabulary import DTYPES, UPDATES

TORCH_DTYPES: dict[torch.dtype, str] = {
    torch.float32: "f32",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "bool",
    torch.float16: "f16",
    torch.float64: "f64",
    torch.bfloat16: "bf16",
}
assert set(TORCH_DTYPES.values()) == set(DTYPES)
# Dtypes that no engine accepts, and the one that the bundle uses instead; the writer of the source converts.
TAKEN_AS: dict[torch.dtype, torch.dtype] = {
    torch.bfloat16: torch.float32,
    torch.float64: torch.float32,
    torch.uint16: torch.int32,
    torch.int16: torch.int32,
    torch.int8: torch.int32,
}


def as_taken(tensor: torch.Tensor) -> torch.Tensor:
    """A source's content, or an output, converted to the dtype that the bundle uses for it."""
    return tensor.to(TAKEN_AS[tensor.dtype]) if tensor.dtype in TAKEN_AS else tensor


def as_kept(tensor: torch.Tensor) -> torch.Tensor:
    """A carried value, converted to the dtype in which it lies between steps: f32 for all floating point."""
    return tensor.float() if tensor.dtype is torch.float16 else as_taken(tensor)


@dataclass(frozen=True)
class Source:
    """One input of a policy and how often it changes.

    update: "static" (known at compile time: its example value is constant-folded), "task" (per
        instruction), "observation" (per replan, e.g. camera frames), "step" (per loop, e.g. the
        noise that a denoising loop starts from), "tick" (per control tick).
    clock: nominal rate in Hz, or None if it is not periodic.
    history: how many observations the policy sees. With n > 1 the inference function takes [1,n,...], oldest first;
        the robot writes the newest only, [1,...]. All histories of a policy advance together, once per step (or
        observe) before which at least one of them was written; the first observation fills them. That of a source
        that changes per task holds the task under which each observation was made.
    """

    update: str
    clock: float | None = None
    history: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.update, str) or self.update not in UPDATES:
            raise SourceError(
                f'"{self.update}" is not an update class',
                where="vlacompile.Source(update=...)",
                why=nearest(str(self.update), UPDATES),
                fix="choose how often this input changes",
            )
        declared.whole(self.history, 1, "vlacompile.Source(history=...)",
                       "give the number of observations that the policy "
                       "sees")
        if self.history > 1 and self.update not in ("task", "observation", "tick"):
            raise SourceError(
                f"a history of {self.history} of a source that changes per {self.update}",
                where="vlacompile.Source(history=...)",
                why="a constant has no earlier value, and what a loop starts from is drawn anew",
                fix='use update="observation" and the number of observations that the policy sees',
            )
        if self.clock is not None:
            declared.positive(self.clock, "vlacompile.Source(clock=...)",
                              "give a rate in Hz, or None for an input that is "
                              "not periodic")


@dataclass(frozen=True)
class Loop:
    """A declared loop, for a policy whose `step` is a function of its own.

    iterations: how often `step` runs per replan.
    carry: {argument of `step`: the input or output of observe with which it starts}. `step` returns a dict
        with the same keys (the next values); after the last iteration they are policy outputs.
    index: name of the argument of `step` that receives the iteration 0, 1, ... as an int, or None.
    """

    iterations: int
    carry: Mapping[str, str]
    index: str | None = None

    def __post_init__(self) -> None:
        declared.whole(self.iterations, 1, "vlacompile.Loop(iterations=...)", "give the number of iterations")
        fix = 'give {argument of step: its initial value}, e.g. {"action": "noise"}'
        declared.mapping(self.carry, "vlacompile.Loop(carry=...)", str, fix)
        declared.instance(self.index, str, "vlacompile.Loop(index=...)", "give the name of the argument, or None")
        if not self.carry:
            declared.refuse("nothing is carried", "vlacompile.Loop(carry=...)",
                            "every iteration would compute the same", fix)


@dataclass(frozen=True)
class Policy:
    """An inference function with named inputs.

    observe: callable(**inputs) -> dict of tensors. It takes raw inputs (uint8 frames, joint state,
        token ids) and returns robot actions: pre- and post-processing belong inside. A nn.Module, a
        bound method, or a closure over modules. A list of n tensors [1,...] of one shape (one action per step) is
        the output [1,n,...].
    sources: {input name: Source}; the names are the keyword arguments of `observe`.
    example_inputs: {input name: tensor}; the policy is compiled for their shapes and dtypes.
    step, loop: only for a loop that is declared instead of written inside `observe`.
    execute: number of actions of a chunk that are executed per replan, unless the recipe sets it; None: all.
    ensemble: decay of temporal ensembling, if the policy is meant to be run with it (see the recipe's action.decay),
        unless the recipe sets how many actions are executed; None: an action queue.
    calibration: the calibration set, recorded inputs shaped as example_inputs; empty: observations are generated.
    solvers: {name: evaluations -> this policy with another sampler}, for a denoising loop that the compiler cannot
        shorten from its graph; the inputs are among those of this policy.
    outputs: names of the returned tensors to keep; the first feeds the action queue when its shape
        is [1, H, action_dim], or when `decoder` converts it to actions.
    decoder: how the runtime decodes the first output: tokens to actions, actions relative to the state.
    texts: {source of token ids: how the runtime tokenizes a text for it}; without it the host writes the ids.
    encoding: how the host computes sources that no text alone gives, for observations of a dataset.
    guidance: sources that the runtime fills from the previous chunk (real-time chunking inside the function).
    backbones: {name: output} of policies that were joined (see join_backbones.py), of which a session runs one at a
        time; the first is the default. Empty: a single policy.
    buckets: where the backbones are this policy for several lengths of its text (see text_buckets.py), which is run
        follows from the text.
    origin: {title: text} of what a person should know about how the policy was read, shown and stored in the manifest.
    carried: {input name: Carried}; inputs that no one writes, as a step takes them from the one before.
    Raises SourceError when names, shapes or types do not fit together.
    """

    name: str
    observe: Callable[..., Mapping[str, torch.Tensor]]
    sources: Mapping[str, Source]
    example_inputs: Mapping[str, torch.Tensor]
    step: Callable[..., Mapping[str, torch.Tensor]] | None = None
    loop: Loop | None = None
    outputs: tuple[str, ...] = field(default=("action",))
    execute: int | None = None
    ensemble: float | None = None
    calibration: tuple[Mapping[str, torch.Tensor], ...] = field(default=())
    solvers: Mapping[str, Callable[[int], Policy]] = field(default_factory=dict)
    decoder: Decoder | None = None
    guidance: Guidance | None = None
    texts: Mapping[str, Text] = field(default_factory=dict)
    encoding: HostEncoding | None = None
    backbones: Mapping[str, str] = field(default_factory=dict)
    buckets: TextBuckets | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    carried: Mapping[str, Carried] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f'Policy "{self.name}"'
        self._check_types(where)
        if set(self.sources) != set(self.example_inputs):
            odd = sorted(set(self.sources) ^ set(self.example_inputs))
            raise SourceError(
                f"sources and example_inputs name different inputs: {', '.join(odd)}",
                where=where,
                why="every source needs one example tensor, and every example a source",
                fix="give the same keys to both",
            )
        if all(s.update == "static" for s in self.sources.values()):
            raise SourceError("the policy has no input", where=where,
                              why="a function of no inputs is a constant chunk",
                              fix='declare what the robot writes as sources, e.g. {"state": '
                                  'vlacompile.Source("observation")}')
        self._check_examples(where)
        for name, text in self.texts.items():
            self._check_text(name, text)
        unknown = [n for n in (self.encoding.gives if self.encoding else ()) if n not in self.sources]
        if unknown:
            raise SourceError(f'encoding gives "{unknown[0]}", which is no source', where=where,
                              why=nearest(unknown[0], self.sources), fix="name sources of the policy in `gives`")
        if (self.step is None) != (self.loop is None):
            raise SourceError(
                "only one of step and loop is given",
                where=where,
                why="a declared loop needs a step function, an iteration count and a carry",
                fix="give both, or write the loop inside observe and give neither",
            )
        both = [n for n in self.outputs if n in self.sources or n in self.carried]
        if both:
            raise SourceError(
                f'"{both[0]}" names an input and an output',
                where=where,
                why="names of values are unique in a bundle",
                fix="return the tensor under another name",
            )
        if self.backbones and (len(self.backbones) < 2 or tuple(self.backbones.values()) != tuple(self.outputs)):
            raise SourceError(
                f"backbones name {', '.join(self.backbones.values())}",
                where=where,
                why=f"two or more backbones need one output each, in the same order; outputs are "
                    f"{', '.join(self.outputs)}",
                fix="use vlacompile.join(), which sets both",
            )
        self._check_carried(where)
        if not self.outputs:
            raise SourceError(
                "outputs is empty",
                where=where,
                why="a policy without outputs computes nothing",
                fix='name at least one returned tensor, e.g. outputs=("action",)',
            )

    def _check_carried(self, where: str) -> None:
        declared.mapping(self.carried, f"{where}, carried", Carried,
                         'give {"hidden": vlacompile.Carried("hidden.next", initial=torch.zeros(1, 64)), ...}')
        twice = [n for n in self.carried if n in self.sources]
        if twice:
            raise SourceError(f'"{twice[0]}" is a source and carried', where=where,
                              why="the robot writes sources, and the step before gives what is carried",
                              fix="leave it out of sources and example_inputs")
        made: dict[str, str] = {}
        for name, c in self.carried.items():
            if c.output in self.sources or c.output in self.carried:
                raise SourceError(f'"{c.output}" names an input and an output', where=f'{where}, carried["{name}"]',
                                  why="names of values are unique in a bundle",
                                  fix=f'return what the next step takes under another name, e.g. "{name}.next"')
            if made.setdefault(c.output, name) != name:
                raise SourceError(f'"{made[c.output]}" and "{name}" take the same output', where=f"{where}, carried",
                                  why=f'both are "{c.output}" of the step before',
                                  fix="carry it once, and read it twice")

    def _check_examples(self, where: str) -> None:
        for name, tensor in self.example_inputs.items():
            declared.example(name, tensor, where, TORCH_DTYPES | {torch.int16: "i16", torch.uint16: "u16"})
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise SourceError(
                    f'example input "{name}" holds NaN or infinity',
                    where=where,
                    why="examples are also the golden inputs, and the runtime refuses such values",
                    fix="give a recorded or generated observation",
                )
        for i, inputs in enumerate(self.calibration):
            odd = [n for n, t in self.example_inputs.items() if n not in inputs
                   or not isinstance(inputs[n], torch.Tensor) or inputs[n].shape != t.shape
                   or inputs[n].dtype != t.dtype]
            if odd:
                raise SourceError(
                    f'calibration observation {i} does not fit: "{odd[0]}"',
                    where=where,
                    why="it is missing, or has another shape or dtype than the example",
                    fix="give every input as in example_inputs",
                )
        for name, source in self.sources.items():
            shape = tuple(self.example_inputs[name].shape)
            if source.history > 1 and shape[:2] != (1, source.history):
                raise SourceError(
                    f'example input "{name}" is not a history of {source.history} observations',
                    where=where,
                    why=f"it has shape {list(shape)}, not [1,{source.history},...]",
                    fix="stack the observations along dimension 1, oldest first",
                )

    def _check_types(self, where: str) -> None:
        if not isinstance(self.name, str) or not self.name:
            declared.refuse(f"{self.name!r} is not a name", "vlacompile.Policy(name=...)", "it identifies bundles",
                            "give a non-empty string")
        declared.function(self.observe, f"{where}, observe")
        if self.step is not None:
            declared.function(self.step, f"{where}, step")
        declared.mapping(self.sources, f"{where}, sources", Source,
                         'give {"image": vlacompile.Source("observation"), ...}')
        declared.mapping(self.example_inputs, f"{where}, example_inputs", None, "give a tensor for every source")
        declared.names(self.outputs, f"{where}, outputs")
        declared.instance(self.loop, Loop, f"{where}, loop", "give a vlacompile.Loop(...)")
        if self.execute is not None:
            declared.whole(self.execute, 1, f"{where}, execute",
                           "give how many actions of a chunk are executed, or None")
        declared.instance(self.ensemble, Real, f"{where}, ensemble", "give the decay, e.g. 0.01, or None")
        declared.instance(self.decoder, Decoder, f"{where}, decoder",
                          "give a vlacompile.policy.action_decoding.Decoder, or None")
        declared.instance(self.guidance, Guidance, f"{where}, guidance",
                          "give a vlacompile.policy.action_decoding.Guidance, or None")
        declared.mapping(self.texts, f"{where}, texts", Text,
                         "give {source of tokens: vlacompile.policy.text.Text(...)}")
        declared.instance(self.calibration, (tuple, list), f"{where}, calibration", "give a tuple of observations")
        for i, inputs in enumerate(self.calibration):
            declared.mapping(inputs, f"{where}, calibration observation {i}", None, "give inputs as in example_inputs")
        # a tensor that requires a gradient cannot be read as an array; inference needs none
        examples = {n: t.detach() if isinstance(t, torch.Tensor) else t for n, t in self.example_inputs.items()}
        object.__setattr__(self, "example_inputs", examples)
        object.__setattr__(self, "outputs", tuple(self.outputs))
        object.__setattr__(self, "calibration", tuple(
            {n: t.detach() if isinstance(t, torch.Tensor) else t for n, t in x.items()} for x in self.calibration))

    def _check_text(self, name: str, text: Text) -> None:
        for which, dtypes in ((name, (torch.int64, torch.int32)), (text.mask, (torch.bool,))):
            if which is None:
                continue
            example = self.example_inputs.get(which)
            fits = (example is not None and example.dtype in dtypes and example.dim() == 2 and example.shape[0] == 1
                    and example.shape == self.example_inputs[name].shape and self.sources[which].history == 1)
            if not fits:
                shape = None if example is None else ",".join(map(str, example.shape))
                raise SourceError(
                    f'"{which}" cannot be filled from a text',
                    where=f'Policy "{self.name}", texts["{name}"]',
                    why="no such source" if example is None else
                    f"it is {TORCH_DTYPES[example.dtype]}[{shape}], not {TORCH_DTYPES[dtypes[0]]}[1,L] without a "
                    f"history",
                    fix="name a source of token ids [1,L], i64 or i32, and a mask of the same shape, bool",
                )

    @cached_property
    def carried_inputs(self) -> dict[str, CarriedInput]:
        """{input: what it holds}, with an input more for each whose first content is computed."""
        found: dict[str, CarriedInput] = {}
        for name, c in self.carried.items():
            with torch.no_grad():
                first = first_content(name, c, self.example_inputs)
            if first is c.initial:
                found[name] = CarriedInput(c.output, as_kept(first), c.until, first.dtype)
            else:
                zeros = torch.zeros(first.shape, dtype=first.dtype)
                found[name] = CarriedInput(c.output, as_kept(zeros), c.until, first.dtype)
                found[f"{name}.{BEGUN}"] = CarriedInput(f"{name}.{BEGUN}.next", torch.zeros(1, dtype=torch.bool),
                                                        c.until, torch.bool)
        return found

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """{every input of the function: an example}: what the robot writes, then what is carried."""
        return {**self.example_inputs, **{n: c.initial for n, c in self.carried_inputs.items()}}

    @property
    def functions(self) -> tuple[Callable | None, ...]:
        """All that the policy computes with."""
        return self.observe, self.step, *(c.initial for c in self.carried.values() if callable(c.initial))

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names by which `observe` is called."""
        return *self.sources, *self.carried

    @property
    def returned(self) -> tuple[str, ...]:
        """The outputs, then what is carried beside them."""
        return tuple(dict.fromkeys((*self.outputs, *(c.next for c in self.carried_inputs.values()))))

    def handed_on(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the next call of `infer` is given of what this one returned, beside what the robot writes."""
        return {name: values[c.next] for name, c in self.carried_inputs.items()}

    def infer(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The whole original function with a declared loop unrolled: the reference for parity. Inputs may have the
        dtypes that the bundle uses. Without what is carried it is the first step of an episode; `handed_on` of what it
        returns makes the next one of the call that is given it."""
        inputs |= {n: inputs[n].to(t.dtype) for n, t in self.example_inputs.items() if n in inputs
                   and inputs[n].dtype != t.dtype}
        given = inputs | self._taken(inputs) if self.carried else inputs
        values = named(self.name, self.observe, self.observe(**given), self.outputs[0])
        if self.loop is not None:
            values |= self._looped(given, values)
        values |= {c.next: torch.ones(1, dtype=torch.bool) for n, c in self.carried_inputs.items()
                   if n not in self.carried}
        function = self.observe if self.step is None else self.step
        values |= tensors(self.name, function, values, self.returned)
        for name, kept in self.carried_inputs.items():
            require_fitting(self.name, name, kept, values[kept.next])
            values[kept.next] = as_kept(values[kept.next])
        return values

    def _taken(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the function is given for its carried inputs."""
        found: dict[str, torch.Tensor] = {}
        for name, c in self.carried.items():
            known = self.carried_inputs[name]
            given = inputs[name].to(known.dtype) if name in inputs else None
            begun = inputs.pop(f"{name}.{BEGUN}", None)
            if isinstance(c.initial, torch.Tensor) or (given is not None and begun is None):
                found[name] = known.initial.to(known.dtype, copy=True) if given is None else given
            else:
                first = first_content(name, c, {n: inputs[n] for n in self.sources})
                found[name] = first if given is None or begun is None else torch.where(
                    begun.reshape(()), given, first)
        return found

    def _looped(self, inputs: Mapping[str, torch.Tensor], values: dict) -> dict[str, torch.Tensor]:
        assert self.loop is not None and self.step is not None
        known, carry = {**inputs, **values}, {}
        for name, start in self.loop.carry.items():
            if start not in known:
                raise CaptureError(f'the loop starts "{name}" from "{start}", which does not exist',
                                   where=f'Policy "{self.name}", loop.carry', why=nearest(start, known),
                                   fix="name an input, or an output of observe")
            carry[name] = known[start]
        for k in iterations(self.loop.iterations):
            index = {self.loop.index: k} if self.loop.index else {}
            try:
                answer = self.step(**values, **carry, **index)
            except TypeError:
                check_call(self.name, self.step, [*values, *carry, *index], "the loop's step")
                raise
            carry = named(self.name, self.step, answer, next(iter(self.loop.carry)))
        return carry
