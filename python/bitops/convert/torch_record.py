"""Runs a module of PyTorch on two random examples, and records what it computes of them.

The examples are tensors of a class of their own, which every function of PyTorch hands over before
it computes: also within autograd Functions, through masks that are assigned to, and behind the
control flow of Python, as long as it asks for sizes and not for values. So a module is seen as it
runs, whatever it is written like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np

from .errors import ConversionError
from .graph import BATCH
from .simplify import is_three_way
from .steps import Levels
from .tensors import Tensor
from .torch_calls import FunctionNode, Operation
from .torch_forms import Steps, find_steps
from .torch_module import EXAMPLES, import_torch
from .torch_ops import HANDLERS
from .traces import Trace

_MOST_BASES = 6

# Functions that give no tensor made of values: sizes, kinds, places.
_ASKS = frozenset(
    "size dim ndimension numel nelement element_size stride storage_offset is_contiguous len hash "
    "is_floating_point is_complex is_signed get_device shape ndim dtype device layout is_cuda "
    "is_cpu is_leaf is_sparse is_quantized is_mps is_meta is_nested requires_grad grad grad_fn "
    "names sym_size nbytes itemsize version retain_grad register_hook data_ptr "
    "backward_hooks is_same_size result_type".split()
) | {"set requires_grad", "set grad"}
# Functions that give tensors for a module to fill, or to choose from.
_BLANKS = frozenset(
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_tensor "
    "new".split()
)
# Functions that take values into Python, where they cannot be followed.
_LOOKS = frozenset(
    "bool float int index item tolist numpy array nonzero is_nonzero equal allclose contains "
    "unique".split()
)
# Functions that give the same values, perhaps as numbers of another kind.
_KINDS = frozenset(
    "double half bfloat16 to type type_as to_copy dtype_float dtype_int dtype_long dtype_bool "
    "dtype_byte dtype_short".split()
)
_SAME = _KINDS | frozenset(
    "contiguous clone detach alias data cpu cuda expand expand_as positive lift_fresh copy".split()
)
# What arguments are called elsewhere too; the first one is given by its place.
_ALIASES = {"axis": "dim", "keepdims": "keepdim"}
# Functions of single numbers, which together may be a step.
_SINGLE = frozenset(
    "abs absolute add sub subtract rsub mul multiply div divide true_divide truediv rdiv "
    "reciprocal neg negative sign sgn pow square sqrt exp clamp clip clamp_min clamp_max hardtanh "
    "relu relu6 where gt greater ge greater_equal lt less le less_equal eq ne logical_not "
    "logical_and logical_or bitwise_not bitwise_and bitwise_or invert and or masked_fill round "
    "floor ceil trunc tanh sigmoid softsign maximum minimum max min heaviside iadd isub imul idiv "
    "itruediv radd rmul".split()
)


@dataclass(frozen=True, eq=False)
class FunctionCall:
    """A function of single numbers, and what it was called with."""

    function: Any
    args: tuple
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Recorded:
    """What is known of a recorded tensor.

    Attributes
    ----------
    tensor : Tensor or None
        None if it cannot be represented alone, as `refusal` says.
    bases : tuple of Tensor
        Tensors of whose single numbers it is a function, by `call`; the newest first.
    constant : torch.Tensor, optional
        What it is, if it does not depend on the input. Masks may be assigned to it later.
    """

    tensor: Tensor | None
    bases: tuple[Tensor, ...] = ()
    call: FunctionCall | None = None
    refusal: ConversionError | None = None
    constant: Any = None

    def known(self) -> Tensor:
        if self.tensor is None:
            raise self.refusal or ConversionError(
                "[from_torch] the output does not depend on the input"
            )
        return self.tensor

    def of(self, base: Tensor, x: Any, done: dict[int, Any]) -> Any:
        """Compute it for numbers x of a base; `done` holds what was computed for them."""
        if self.tensor is base:
            return x
        if id(self) not in done:

            def given(value: Any) -> Any:
                # a copy, because the function may be one that works in place
                return value.of(base, x, done).clone() if isinstance(value, Recorded) else value

            assert self.call is not None
            args, kwargs = _mapped(given, self.call.args), _mapped(given, self.call.kwargs)
            done[id(self)] = self.call.function(*args, **kwargs)
        return done[id(self)]


@dataclass(eq=False)
class Record:
    """The value of recorded tensors that share their memory, and these."""

    value: Recorded
    owners: list[Any]


@cache
def _recorded_class() -> Any:
    torch = import_torch()

    base: Any = torch.Tensor

    class Recorded(base):
        """A tensor that depends on the input of a network."""

        record: Record
        recorder: Recorder
        seen: int

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if not all(issubclass(kind, torch.Tensor) for kind in types):
                return NotImplemented  # Brevitas has tensors of its own, which unpack themselves
            first = next(x for x in _leaves((args, kwargs)) if isinstance(x, Recorded))
            recorder = vars(first).get("recorder")
            if recorder is None:  # it is being made, or printed
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args, **kwargs)
            return recorder.call(func, args, kwargs)

    return Recorded


class Recorder:
    """Records the calls of one run of a module.

    Attributes
    ----------
    remarks : list of str
        What a user should know.

    Parameters
    ----------
    where : str
        What the module is called in messages.
    sign_of_zero : int
        What signs that are 0 at 0 are taken to be there: 0 or 1.
    """

    def __init__(self, where: str = "the module", sign_of_zero: int = 0):
        self.torch = import_torch()
        self._sign_of_zero = sign_of_zero
        self.remarks: list[str] = []
        self._recorded = _recorded_class()
        self._modules: list[tuple[str, str]] = [("", where)]
        self._running = ""
        self._refusal: ConversionError | None = None

    def run(self, module: Any, start: Tensor, x: Any) -> Tensor:
        """Return the output of a module that gets x, which stands for `start`."""
        try:
            with self.torch.no_grad(), self._following(module):
                y = module(self._made(x, Recorded(start, (start,))))
        except ConversionError as error:
            raise ConversionError(str(error)) from None
        except Exception as error:  # whatever the module says of an input
            place, shape = self._node("forward"), tuple(x.shape[1:])
            raise self._refusal or ConversionError(
                f"[from_torch] {place}: it fails on examples of shape {shape}: {error}"
            ) from None
        if self._refusal is not None:  # the module went on without what was refused
            raise self._refusal
        if not isinstance(y, self.torch.Tensor):
            raise ConversionError(f"[from_torch] the module must return a tensor, got {type(y)}")
        if not isinstance(y, self._recorded):
            raise ConversionError("[from_torch] the output does not depend on the input")
        return self._value_of(y).known()

    # Modules

    @contextmanager
    def _following(self, module: Any) -> Iterator[None]:
        """Keep track of the module whose forward is running."""
        names = {id(part): name for name, part in module.named_modules()}
        handles = []

        def enter(part: Any, args: Any) -> None:
            self._modules.append((names[id(part)], type(part).__name__))

        def leave(part: Any, args: Any, y: Any) -> None:
            takes = any(self._is_recorded(x) for x in _leaves(args))
            lost = isinstance(y, self.torch.Tensor) and not self._is_recorded(y)
            if takes and lost and y.ndim and len(y) == EXAMPLES and (y != y[:1]).any():
                raise self._refused(
                    self._node("forward"), "what it computes cannot be followed, as in TorchScript"
                )
            self._modules.pop()

        for part in module.modules():
            handles.append(part.register_forward_pre_hook(enter))
            handles.append(part.register_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _node(self, function: str) -> FunctionNode:
        """Return the node of a call in the module that is running."""
        name, kind = self._modules[-1]
        return FunctionNode(function, name, (), ("y",), function=function, module=kind)

    # Calls

    def call(self, func: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        """Compute a function for real, and record what it gives."""
        name = self._running = _function_name(func)
        node = self._node(name)
        if name in _ASKS:
            return self._computed(func, args, kwargs)
        if name in _BLANKS:
            blank = self._computed(func, args, kwargs)
            return self._made(blank, Recorded(None, constant=blank))
        if name in _LOOKS:
            raise self._refused(
                node,
                "the module decides by values, which a chain of layers cannot; export it by "
                "torch.onnx.export, which may take one of the ways, and use from_onnx",
            )
        try:
            values = [self._value_of(x) for x in _leaves((args, kwargs)) if self._is_recorded(x)]
            if self._is_shaped_constant(name, args) or all(
                value.constant is not None for value in values
            ):
                return self._constants(name, func, args, kwargs)
            value = self._value(node, func, args, kwargs)
        except ConversionError as error:
            self._refusal = self._refusal or error
            raise
        return self._given(name, value, self._computed(func, args, kwargs), args)

    def _refused(self, node: FunctionNode, reason: str) -> ConversionError:
        """Return a refusal, and keep it: the module may catch it."""
        self._refusal = self._refusal or node.refuse(reason)
        return self._refusal

    def _is_shaped_constant(self, name: str, args: tuple) -> bool:
        """Return whether a call is one like constant.expand_as(x)."""
        if name not in _SAME or name == "copy" or not args:
            return False
        first = args[0]
        return not self._is_recorded(first) or self._value_of(first).constant is not None

    def _constants(self, name: str, func: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        """Return what a function gives of constants."""
        y = self._computed(func, args, kwargs)
        if name == "set data" or name == "setitem":
            y = args[0]
        if not isinstance(y, self.torch.Tensor):
            return y
        constant = self._computed(lambda: y.detach().as_subclass(self.torch.Tensor), (), {})
        value = Recorded(None, constant=constant)
        return self._given(name, value, y, args)

    def _computed(self, func: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        with self.torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    def _value(self, node: FunctionNode, func: Any, args: tuple, kwargs: Any) -> Recorded:
        if kwargs.get("out") is not None:
            raise node.refuse("out= is not supported")
        name = node.op

        def lifted(x: Any) -> Any:
            if not self._is_recorded(x):
                return x
            value = self._value_of(x)
            return value if value.constant is None else value.constant

        args, kwargs = _mapped(lifted, args), _mapped(lifted, kwargs)
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        kwargs = {_ALIASES.get(key, key): value for key, value in kwargs.items()}
        if name in _SAME or name == "set data":
            return self._same(node, func, args, kwargs)
        if name == "setitem":
            x, mask, chosen = args
            if not isinstance(mask, Recorded):
                raise node.refuse("only elements that a comparison chooses can be assigned to")
            if not isinstance(x, Recorded):  # what is not assigned to may hold anything
                first = x.reshape(-1)[0].clone()
                x = first if (x == first).all() else first.fill_(np.nan)
            func, args, name = self.torch.where, (mask, chosen, x), "where"
        elif name == "masked_fill":
            x, mask, chosen = args
            func, args, name = self.torch.where, (mask, chosen, x), "where"
        operands = [x for x in _leaves((args, kwargs)) if isinstance(x, Recorded)]
        bases = self._bases(operands, args, kwargs) if name in _SINGLE else ()
        tensor, refusal = None, None
        try:
            tensor = self._handled(node, name, args, kwargs)
        except ConversionError as error:
            if not bases:
                raise
            refusal = error
        value = Recorded(tensor, bases, FunctionCall(func, *self._single(args, kwargs)), refusal)
        if bases and (tensor is None or len(operands) > 1):
            tensor = self._as_steps(node, value) or tensor
        if tensor is not None:
            tensor = self._decided(tensor)
            bases = (tensor, *bases)[:_MOST_BASES]
        return replace(value, tensor=tensor, bases=bases)

    def _decided(self, tensor: Tensor) -> Tensor:
        """Give a sign that is 0 at 0 the value there that is wanted."""
        step, before = tensor.trace.step, tensor.trace.before
        if self._sign_of_zero == 0 or not isinstance(step, Levels) or not is_three_way(step):
            return tensor
        two = replace(step, threshold=step.threshold[:, :1], values=step.values[[0, 2]])
        return replace(tensor, trace=Trace(two, before))

    def _handled(self, node: FunctionNode, name: str, args: tuple, kwargs: Any) -> Tensor:
        """Return what a function computes, by the operators of ONNX."""
        handler = HANDLERS.get(name)
        if handler is None:
            raise node.refuse("the function is not supported")

        def known(x: Any) -> Any:
            return x.known() if isinstance(x, Recorded) else self._constant(x, name in _SINGLE)

        args, kwargs = _mapped(known, args), _mapped(known, kwargs)
        try:
            return handler(Operation(node, self.remarks), *args, **kwargs)
        except TypeError as error:
            raise node.refuse(f"its arguments are not supported: {error}") from None

    def _constant(self, x: Any, is_operand: bool) -> Any:
        """Return an argument as the handlers take it: tensors as arrays."""
        if not isinstance(x, self.torch.Tensor):
            return x
        x = x.detach().cpu()
        if x.dtype in (self.torch.float16, self.torch.bfloat16):
            x = x.float()
        array = x.numpy()
        if is_operand and array.ndim and len(array) == EXAMPLES and (array == array[:1]).all():
            return array[:1]  # one for each example, such as ones_like(x)
        return array

    def _same(self, node: FunctionNode, func: Any, args: tuple, kwargs: Any) -> Recorded:
        """Return the value that a copy, a view of all or another kind of numbers has."""
        if node.op in ("copy", "set data"):
            value = args[1]
            if not isinstance(value, Recorded):
                raise node.refuse("numbers that depend on the input are replaced by constants")
            return value
        value = args[0]
        if not isinstance(value, Recorded):
            raise node.refuse("its first operand must depend on the input of the network")
        torch = self.torch
        names = {"half": torch.float16, "bfloat16": torch.bfloat16}
        names |= {"dtype_int": torch.int32, "dtype_long": torch.int64, "dtype_bool": torch.bool}
        names |= {"dtype_short": torch.int16, "dtype_byte": torch.uint8}
        kinds = [x for x in _leaves((args[1:], kwargs)) if isinstance(x, torch.dtype)]
        kind = names.get(node.op, kinds[0] if kinds else torch.float32)
        if node.op == "type" and any(isinstance(x, str) for x in args[1:]):
            raise node.refuse("give the type as a torch.dtype, such as torch.float32")
        if kind in (torch.float16, torch.bfloat16):
            raise node.refuse("half precision is not supported")
        if node.op.startswith("expand"):
            value = self._expanded(node, value, args[1:])
        if not kind.is_floating_point and not isinstance(value.known().trace.step, Levels):
            raise node.refuse("a cast to integers or bool is supported only behind a comparison")
        if node.op in _KINDS:
            return replace(value, call=FunctionCall(func, args, kwargs))
        return value

    def _expanded(self, node: FunctionNode, value: Recorded, sizes: tuple) -> Recorded:
        if len(sizes) == 1 and isinstance(sizes[0], Recorded):
            wanted = sizes[0].known().shape()
        else:
            given = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
            wanted = [BATCH, *given[1:]]
        known = value.known()
        here = known.shape()
        if len(here) != len(wanted) or any(
            size not in (-1, own) and axis != "1"  # a product takes one factor for all pixels
            for size, own, axis in zip(wanted, here, known.axes, strict=True)
        ):
            raise node.refuse("what depends on the input cannot be repeated")
        repeated = known.repeated([1 if size in (-1, None) else size for size in wanted])
        return value if repeated.axes == known.axes else replace(value, tensor=repeated)

    # Functions of single numbers

    def _bases(self, operands: list[Recorded], args: tuple, kwargs: Any) -> tuple[Tensor, ...]:
        """Return the tensors of whose single numbers a call is a function."""
        numbers = [x for x in _leaves((args, kwargs)) if isinstance(x, self.torch.Tensor)]
        if any(x.numel() != 1 and not (x == x.reshape(-1)[:1]).all() for x in numbers):
            return ()
        first, *others = operands
        return tuple(
            base for base in first.bases if all(any(base is b for b in x.bases) for x in others)
        )

    def _single(self, args: tuple, kwargs: Any) -> tuple[tuple, Any]:
        """Return arguments with one number in place of tensors of equal ones."""

        def single(x: Any) -> Any:
            return x.reshape(-1)[0] if isinstance(x, self.torch.Tensor) and x.numel() else x

        return _mapped(single, args), _mapped(single, kwargs)

    def _as_steps(self, node: FunctionNode, value: Recorded) -> Tensor | None:
        """Return a function of single numbers as Levels, if it gives a few values."""
        for base in value.bases:
            found = self._find_steps(value, base)
            if found is None:
                continue
            if not found.is_exact:
                values = ", ".join(f"{value:g}" for value in found.values)
                self.remarks.append(f"{node}: it is taken to give exactly {values}")
            threshold = found.threshold[np.newaxis]
            step = Levels(str(node), base.features(node), threshold, found.values)
            return base.add(step)
        return None

    def _find_steps(self, value: Recorded, base: Tensor) -> Steps | None:
        def function(x: np.ndarray) -> np.ndarray:
            y = value.of(base, self.torch.from_numpy(x), {})
            return np.array(y.numpy(), np.float64)

        try:
            with self.torch.no_grad():
                return find_steps(function)
        except Exception:  # functions that do not take these numbers, such as masks of floats
            return None

    # Recorded tensors

    def _made(self, y: Any, value: Recorded, record: Record | None = None) -> Any:
        made = y.detach().as_subclass(self._recorded)
        made.record = record or Record(value, [])
        made.record.owners.append(made)
        made.seen = made._version
        made.recorder = self
        return made

    def _given(self, name: str, value: Recorded, y: Any, args: tuple) -> Any:
        """Attach a value to what a function gave, which may be its first argument, changed."""
        first = args[0] if args else None
        if isinstance(first, self._recorded) and (
            y is first or name in ("setitem", "set data", "copy")
        ):
            first.record.value = value
            for owner in first.record.owners:
                owner.seen = self._version(owner)
            return y
        if (y is first or name == "setitem") and value.constant is None:
            raise self._refused(
                self._node(name),
                "constants become what depends on the input: begin with torch.zeros_like(x)",
            )
        if not isinstance(y, self.torch.Tensor):
            self._refusal = self._refusal or value.refusal
            raise self._refused(self._node(name), f"it gives {type(y).__name__}, not a tensor")
        is_same_memory = (
            first is not None
            and self._is_recorded(first)
            and value is first.record.value
            and y.shape == first.shape
            and y.data_ptr() == self._pointer(first)
        )
        return self._made(y, value, args[0].record if is_same_memory else None)

    def _is_recorded(self, x: Any) -> bool:
        return isinstance(x, self._recorded)

    def _value_of(self, x: Any) -> Recorded:
        if x.seen != self._version(x):
            node = self._node(self._running)
            raise self._refused(node, "its operand was changed in place, through a view of it")
        return x.record.value

    def _version(self, x: Any) -> int:
        return self._computed(lambda: x._version, (), {})

    def _pointer(self, x: Any) -> int:
        return self._computed(lambda: x.data_ptr(), (), {})


def start_of(input_shape: tuple[int, ...]) -> Tensor:
    """Return the input of a network that takes examples of a shape of this package."""
    if len(input_shape) == 2:  # sequences are images of height 1
        return Tensor(Trace(), (1, *input_shape), "ncw", batch=EXAMPLES)
    axes = "nchw" if len(input_shape) == 3 else "nc"
    return Tensor(Trace(), tuple(input_shape), axes, batch=EXAMPLES)


def _function_name(func: Any) -> str:
    """Return what a function does: one name for Tensor.add_, torch.add and aten::add.Tensor."""
    name = getattr(func, "__name__", None) or str(func)
    if name in ("__get__", "__set__"):
        asked = func.__self__.__name__
        return asked if name == "__get__" else f"set {asked}"
    name = name.split(".")[0]
    if name == "batch_norm" and not isinstance(func, FunctionType):
        return "plain_batch_norm"  # its arguments come in another order
    is_magic = name.startswith("__") and name.endswith("__")
    plain = name.strip("_")
    # x.int() makes another kind of tensor, int(x) a number
    if plain in ("float", "int", "long", "bool", "byte", "short") and not is_magic:
        return f"dtype_{plain}"
    return plain


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what is in nested tuples, lists and dicts."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to what is in nested tuples, lists and dicts."""
    if isinstance(value, Mapping):
        return {key: _mapped(function, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_mapped(function, part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return function(value)
