"""Computes what depends on no input while a function is traced, so that control flow on it is decided and only what
inputs reach is recorded.

A constant is a plain tensor: buffers, numbers, shapes and whatever is computed from them; inputs and weights are fake
tensors. Ops on constants run at once, in place and on views too. A value of an input that is written into a constant
turns the memory that it is written into into a recorded value, with the views of it.

Must not know policies, or what happens to the trace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, get_proxy_slot, has_proxy_slot, set_proxy_slot
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from vlacompile.compiler.capture.gradients import SavedResults, in_parts, is_taken_apart
from vlacompile.compiler.capture.known_elements import BY_SHAPE, KnownElements
from vlacompile.compiler.capture.one_name import of_one_name
from vlacompile.compiler.capture.random_draws import DRAWN_BY_SHAPE, SeededDraws, is_draw
from vlacompile.compiler.graph.loop_end import BEGUN

_ATEN = torch.ops.aten
# Memory without content: zeros here, so that a policy that reads it compiles to the same twice.
_EMPTY = frozenset({_ATEN.empty.memory_format, _ATEN.empty_like.default, _ATEN.empty_strided.default,
                    _ATEN.new_empty.default, _ATEN.new_empty_strided.default, _ATEN.empty_permuted.default})
_INDEXED = frozenset({_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default,
                      _ATEN._unsafe_index.Tensor, _ATEN._index_put_impl_.default})
# Python reads a number of their operands, or these decide a shape; besides the ops that PyTorch tags so.
_DECIDES = frozenset({_ATEN.item.default, _ATEN.is_nonzero.default, _ATEN.allclose.default, _ATEN.where.default,
                      _ATEN.argwhere.default, _ATEN.nonzero_numpy.default, _ATEN.one_hot.default,
                      _ATEN.tensor_split.tensor_indices_or_sections})
_DECIDING_TAGS = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
_BYTES_OF_MASK = (torch.bool, torch.uint8)


class Constants:
    """What is known while one function is traced. record: whether ops on constants are recorded as well, for what
    reads the graph later. weights: the tensors behind the first inputs of the trace. batches: whether constants within
    torch.vmap are computed; mixed: set if they met values of inputs there, which only a trace without it can record."""

    def __init__(self, record: Callable[[], bool], batches: bool = True):
        self.record, self.batches, self.mixed = record, batches, False
        self._recorded_anyway = False
        self.draws = SeededDraws()
        self.weights: tuple[torch.Tensor, ...] = ()
        self.assertions: list[str] = []  # about values of inputs, which are not recorded
        self._recorded = KnownElements()
        self._saved = SavedResults()
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # memory of the policy -> (it, its content)
        self._own: set[int] = set()  # memory that the traced function allocated
        self._views = WeakTensorKeyDictionary()  # constant -> (op, operands, which of its results): a view of memory
        self._copies: dict[int, dict[tuple, torch.Tensor]] = {}  # memory -> what recorded ops read of it
        self._inputs_in: dict[int, torch.UntypedStorage] = {}  # memory into which a value of an input was written
        self._lent: list[torch.UntypedStorage] = []  # of views of constants at places that the robot knows
        self._to_be_written: set[int] = set()  # memory
        self._roots: dict[int, torch.Tensor] = {}  # memory -> the recorded tensor that views of it are taken of

    def restore(self) -> None:
        """Gives tensors that the function holds, and that tracing modified, the content that they had before."""
        for memory, content in self._before.values():
            memory.copy_(content)

    def is_modified(self, tensor: torch.Tensor) -> bool:
        """Whether the function writes into this tensor, which existed before it was called."""
        return _memory(tensor) in self._before

    def is_constant(self, value) -> bool:
        return isinstance(value, torch.Tensor) and type(value) in (torch.Tensor, torch.nn.Parameter) and (
            value.layout is torch.strided and not value.is_meta and _memory(value) not in self._inputs_in) and (
            not _is_batched(value) or (self.batches and not isinstance(_unwrapped(value), FakeTensor)))

    def dispatch(self, mode: ProxyTorchDispatchMode, func, types, args: tuple = (), kwargs: dict | None = None):
        """An op of the traced function: computed if its operands are constants, else recorded by `_record`."""
        kwargs, func = kwargs or {}, of_one_name(func)
        same = not is_draw(func) or self.draws.are_the_same(func, args, kwargs)
        if func in BY_SHAPE | (DRAWN_BY_SHAPE if same else frozenset()) and isinstance(args[0], FakeTensor) and (
                _static(args[0]) and not _like(func, args, kwargs)):
            with _disable_current_modes():
                args = (torch.zeros((), dtype=args[0].dtype).expand(tuple(args[0].shape)), *args[1:])
        tensors = _tensors((args, kwargs))
        if func is _ATEN._linalg_check_errors.default and not all(map(self.is_constant, tensors)):
            return None  # an assertion about values of inputs
        if is_taken_apart(func, tensors) and (result := in_parts(mode, func, args, kwargs)) is not NotImplemented:
            return result
        if self._recorded_anyway:
            return _record(mode, func, types, tuple(self._as_operand(mode, a) for a in args), kwargs)
        if (isinstance(func, torch._ops.OpOverload) and func is not BEGUN and same
                and all(map(self.is_constant, tensors)) and not _symbols((args, kwargs))):
            return self._compute(mode, func, args, kwargs, tensors)
        if func not in _INDEXED and (func in _DECIDES or not _DECIDING_TAGS.isdisjoint(getattr(func, "tags", ()))):
            args = tuple(self._known(mode, args))
            if all(map(self.is_constant, _tensors((args, kwargs)))):
                return self._compute(mode, func, args, kwargs, _tensors((args, kwargs)))
        if func in _INDEXED:
            args = (args[0], self._known(mode, args[1], _BYTES_OF_MASK), *args[2:])
        if func in _INDEXED and any(self._is_mask(i) for i in args[1]):
            args = (args[0], self._places(args[1]), *args[2:])
        if func is _ATEN.masked_select.default:
            args = (args[0], *self._known(mode, args[1:]))
        if func is _ATEN.masked_select.default and self._is_mask(args[1]):
            shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
            with _disable_current_modes():
                mask = args[1].expand(shape)
            value = self.dispatch(mode, _ATEN.expand.default, types, (args[0], list(shape)))
            return self.dispatch(mode, _ATEN.index.Tensor, types, (value, [mask]))
        lent = None
        if getattr(func, "is_view", False) and _symbols((args, kwargs)) and self.is_constant(args[0]):
            lent = self._viewed_on_the_robot(mode, args[0])
        self._note_writes(mode, func, args, kwargs)
        args, kwargs = tree_map(lambda v: self._as_operand(mode, v), (args, kwargs))
        last = next(reversed(mode.tracer.graph.nodes), None)
        try:
            result = _record(mode, func, types, args, kwargs)
        except Exception:
            _erase_behind(mode.tracer.graph, last)  # the policy may catch it
            raise
        self._saved.note(result)
        if lent:
            self._lent.append(result.untyped_storage())
        return result

    def _compute(self, mode, func, args: tuple, kwargs: dict, tensors: list[torch.Tensor]):
        written = _written(func, args, kwargs)
        for t in written:
            self._before_write(t)
        if self.record():
            for t in written:
                self._record_constant(mode, t)
        with _disable_current_modes():
            result = func(*args, **kwargs)
            if func in _EMPTY:
                result.zero_()
        results = tree_flatten(result)[0]
        memory = {_memory(t) for t in tensors}
        for i, new in enumerate(results):
            if isinstance(new, torch.Tensor) and (_memory(new) not in memory or func is _ATEN.lift_fresh.default):
                self._own.add(_memory(new))
            elif isinstance(new, torch.Tensor) and not any(new is t for t in tensors):
                self._views[new] = (func, args, kwargs, i)
        if self.record() and not is_draw(func) and any(isinstance(r, torch.Tensor) for r in results):
            operands, options = tree_map(lambda v: self._as_operand(mode, v), (args, kwargs))
            recorded = tree_flatten(_record(mode, func, (), operands, options))[0]
            for new, old in zip(results, recorded, strict=True):
                if isinstance(new, torch.Tensor) and not has_proxy_slot(new, mode.tracer):
                    set_proxy_slot(new, mode.tracer, get_proxy_slot(old, mode.tracer))
        return result

    def _before_write(self, constant: torch.Tensor) -> None:
        """What recorded ops have read of the memory keeps its content; what the function holds too, for `restore`."""
        memory = _memory(constant)
        with _disable_current_modes():
            if memory not in self._own and memory not in self._before:
                whole = torch.empty(0, dtype=torch.uint8).set_(constant.untyped_storage())
                self._before[memory] = whole, whole.clone()
            for read in self._copies.pop(memory, {}).values():
                read.data = read.clone()

    def _viewed_on_the_robot(self, mode, constant: torch.Tensor) -> bool:
        """Before a view is taken of a constant, at a place that the robot knows. True: it is one of a copy, and nothing
        may be written into it."""
        if _memory(constant) not in self._own and _memory(constant) not in self._to_be_written:
            return True
        self._before_write(constant)
        self._record_constant(mode, constant)
        self._inputs_in[_memory(constant)] = constant.untyped_storage()
        return False

    def to_be_written(self, into: torch.Tensor) -> None:
        """Says that a view of it is about to be written into."""
        if self.is_constant(into):
            self._to_be_written.add(_memory(into))

    def _note_writes(self, mode, func, args: tuple, kwargs: dict) -> None:
        """Before an op with a value of an input writes into constants: their memory is recorded from now on."""
        written = _written(func, args, kwargs)
        if any(t.untyped_storage()._cdata == s._cdata for s in self._lent for t in written):
            raise RuntimeError("data-dependent place in a tensor that the function holds is written into")
        for t in filter(self.is_constant, written):
            self._before_write(t)
            self._record_constant(mode, t)
            self._inputs_in[_memory(t)] = t.untyped_storage()

    def _as_operand(self, mode, value):
        """A constant as what a recorded op reads: its own copy, as it is now, or what was recorded of it."""
        if not isinstance(value, torch.Tensor) or has_proxy_slot(value, mode.tracer):
            return value
        if isinstance(value, FakeTensor):
            if (recorded := self._saved.recorded(value)) is not None:
                set_proxy_slot(value, mode.tracer, get_proxy_slot(recorded, mode.tracer))
            return value
        if self.batches and _is_batched(value):
            self.mixed = True
            raise RuntimeError("constants and values of inputs meet within torch.vmap")
        if not self.is_constant(value):
            if type(value) in (torch.Tensor, torch.nn.Parameter) and _memory(value) in self._inputs_in:
                self._record_constant(mode, value)
            return value
        copies = self._copies.setdefault(_memory(value), {})
        if torch.is_grad_enabled() and value.requires_grad:
            with _disable_current_modes():
                alias = value.view_as(value)  # derivatives reach the value through it
            copies[id(alias),] = alias
            return alias
        key = (value.dtype, value.storage_offset(), tuple(value.shape), value.stride(), value.is_conj(), value.is_neg())
        if key not in copies:
            with _disable_current_modes():
                copies[key] = value.detach()
        return copies[key]

    def _record_constant(self, mode, constant: torch.Tensor) -> None:
        """Records memory that so far was a constant, or a view of such memory: a copy, then the same view of it."""
        if has_proxy_slot(constant, mode.tracer):
            return
        memory = _memory(constant)
        if constant in self._views:
            func, args, kwargs, which = self._views[constant]
            for t in tree_leaves((args, kwargs)):
                if isinstance(t, torch.Tensor) and _memory(t) == memory:
                    self._record_constant(mode, t)
            args, kwargs = tree_map(lambda v: self._as_operand(mode, v), (args, kwargs))
            recorded = tree_flatten(_record(mode, func, (), args, kwargs))[0][which]
        elif memory in self._roots:
            recorded = _record(mode, _ATEN.as_strided.default, (), (
                self._roots[memory], list(constant.shape), list(constant.stride()), constant.storage_offset()), {})
        else:
            with _disable_current_modes():
                content = constant.detach().clone()
            recorded = _record(mode, _ATEN.clone.default, (), (content,), {})
            self._roots[memory] = constant
        set_proxy_slot(constant, mode.tracer, get_proxy_slot(recorded, mode.tracer))

    def recorded_copy(self, constant: torch.Tensor) -> torch.Tensor:
        """A copy that is recorded, although no input reaches it."""
        self._recorded_anyway = True
        try:
            return _ATEN.clone.default(constant)
        finally:
            self._recorded_anyway = False

    def set_items(self, into: torch.Tensor, index, value) -> bool:
        """`into[index] = value` at once, if it is about constants: a mask may be written element by element."""
        parts = [(p.start, p.stop, p.step) if isinstance(p, slice) else p
                 for p in (index if isinstance(index, tuple) else (index,))]
        if self.record() or not all(map(self.is_constant, _tensors((into, parts, value)))) or _symbols((parts, value)):
            return False
        self._before_write(into)
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            into[index] = value
        return True

    def _known(self, mode, values, dtypes: tuple = ()) -> list:
        """Values, recorded tensors of `dtypes` (or any) replaced by their content where that is known by now."""
        return [found if isinstance(v, FakeTensor) and (not dtypes or v.dtype in dtypes)
                and (found := self._recorded.content(mode.tracer, self.weights, v)) is not None else v for v in values]

    def _is_mask(self, index) -> bool:
        return self.is_constant(index) and index.dtype in _BYTES_OF_MASK

    def _places(self, indices) -> list:
        """Constant masks among indices as the integer indices of what they choose."""
        with _disable_current_modes():
            return [i for index in indices
                    for i in (index.nonzero().unbind(1) if self._is_mask(index) else (index,))]


_record = ProxyTorchDispatchMode.__torch_dispatch__


@contextlib.contextmanager
def computed_at_once(constants: Constants) -> Iterator[None]:
    """Within this context, tracing computes constants. The tracer's mode is overridden in its class because the
    exporter accepts none."""
    def dispatch(mode, func, types, args=(), kwargs=None):
        return constants.dispatch(mode, func, types, args, kwargs)

    ProxyTorchDispatchMode.__torch_dispatch__ = dispatch
    try:
        yield
    finally:
        ProxyTorchDispatchMode.__torch_dispatch__ = _record


def _erase_behind(graph: Graph, last: Node | None) -> None:
    for node in list(reversed(graph.nodes)):
        if node is last:
            return
        if not node.users:
            graph.erase_node(node)


def _is_batched(tensor: torch.Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    while _is_batched(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def _memory(tensor: torch.Tensor) -> int:
    return _unwrapped(tensor).untyped_storage()._cdata


def _tensors(values) -> list[torch.Tensor]:
    return [v for v in tree_leaves(values) if isinstance(v, torch.Tensor)]


def _symbols(values) -> bool:
    """Whether a number among the values depends on an input."""
    return any(isinstance(v, (torch.SymInt, torch.SymFloat, torch.SymBool)) for v in tree_leaves(values))


def _like(func, args: tuple, kwargs: dict) -> bool:
    """Whether the result is numbers like the operand, as the states that a loop starts from: they are recorded, so that
    its first iteration is computed as the others are."""
    return func.overloadpacket in (_ATEN.full_like, _ATEN.ones_like, _ATEN.zeros_like) and (
        args[0].is_floating_point() and kwargs.get("dtype") in (None, args[0].dtype))


def _static(tensor: torch.Tensor) -> bool:
    return not any(isinstance(d, torch.SymInt) for d in tensor.shape)


def _written(func, args: tuple, kwargs: dict) -> list[torch.Tensor]:
    """The operands that an op modifies in place."""
    if not isinstance(func, torch._ops.OpOverload) or not func._schema.is_mutable:
        return []
    given = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
    return [t for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write and a.name in given
            for t in _tensors(given[a.name])]
