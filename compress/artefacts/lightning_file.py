"""Checkpoints of torch.save and Lightning, read without torch and without executing anything.

    zip -> data.pkl -> a pickle machine that knows no code -> plain values, tensor entries
        -> data/KEY  storages, read on demand

A pickle is a program that names functions to call. The machine here interprets the opcodes that
torch.save writes, knows the few functions that describe tensors and containers, and turns every
other function, class or object into an inert :class:`Foreign` that remembers its name.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compress.artefacts.summary import (
    RUNNING_STATISTICS,
    FileSummary,
    is_running_statistic,
    layers_by_prefix,
    sha256_of,
)
from compress.errors import InputError

ByteOrder = Literal["<", ">"]

_MOST_PICKLE_BYTES = 64 * 2**20
_MOST_OPCODES = 3_000_000
_MOST_VALUES = 200_000  # of hyper-parameters, rendered
_MOST_DEPTH = 100
_MOST_ARRAY_BYTES = 8 * 2**30

# torch's storage class or dtype -> numpy dtype; bfloat16 is widened to float32 when read.
_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1",
    "ByteStorage": "u1", "BoolStorage": "?", "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16", "QInt8Storage": "i1", "QUInt8Storage": "u1",
    "QInt32Storage": "i4", "UntypedStorage": "u1",
}  # fmt: skip
_DTYPES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "bf16", "int64": "i8",
    "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?", "uint16": "u2",
    "uint32": "u4", "uint64": "u8", "complex64": "c8", "complex128": "c16", "float8_e4m3fn": "u1",
    "float8_e5m2": "u1", "float8_e4m3fnuz": "u1", "float8_e5m2fnuz": "u1",
}  # fmt: skip


class Foreign(str):
    """A class, function or object that the file names and that is never made: its class name.

    ``module`` is where it is said to come from, ``attributes`` what the file says that it holds,
    for example ``negative_slope`` of a LeakyReLU.
    """

    module: str
    attributes: dict[str, Any]

    def __new__(cls, name: str, module: str = "", attributes: dict[str, Any] | None = None) -> Any:
        made = super().__new__(cls, name)
        made.module = module
        made.attributes = attributes or {}
        return made


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as the checkpoint describes it. Offset and stride count elements of the storage."""

    shape: tuple[int, ...]
    dtype: str  # numpy's name, or "bf16"
    storage: str  # key: entries with one key share memory
    offset: int
    stride: tuple[int, ...]
    storage_elements: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """Elements of storage from the first to the last one used."""
        if not self.elements:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in steps)


@dataclass(frozen=True)
class LightningCheckpoint:
    """A checkpoint's weights, described, and its hyper-parameters as plain values."""

    path: Path
    state_dict: Mapping[str, TensorEntry]
    hyper_parameters: Mapping[str, Any]
    _prefix: str = ""
    _byte_order: ByteOrder = "<"
    notes: tuple[str, ...] = field(default=())

    def array(self, name: str) -> np.ndarray:
        """The tensor's values, shape as in the entry; raises InputError where they are damaged."""
        entry = self.state_dict[name]
        itemsize = _itemsize(entry.dtype)
        wanted = entry.storage_elements * itemsize
        if max(wanted, entry.elements * itemsize) > _MOST_ARRAY_BYTES:
            raise InputError(f"{self.path}: {name!r} needs {wanted:,} bytes; refused")
        try:
            with zipfile.ZipFile(self.path) as archive:
                raw = archive.read(f"{self._prefix}data/{entry.storage}")
        except (*_ZIP_ERRORS, KeyError) as error:
            raise InputError(f"{self.path}: the data of {name!r} is damaged ({error})") from None
        if len(raw) != wanted:
            raise InputError(f"{self.path}: the data of {name!r} has another size; file damaged")
        stored = "u2" if entry.dtype == "bf16" else entry.dtype
        flat = np.frombuffer(raw, np.dtype(stored).newbyteorder(self._byte_order))
        if entry.dtype == "bf16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        flat = flat.astype(flat.dtype.newbyteorder("="))
        strides = tuple(step * flat.itemsize for step in entry.stride)
        if not entry.elements:
            return np.zeros(entry.shape, flat.dtype)
        view = np.lib.stride_tricks.as_strided(
            flat[entry.offset :], entry.shape, strides, writeable=False
        )
        return np.array(view)

    def aliases(self) -> list[tuple[str, ...]]:
        """Groups of names that stand for one tensor."""
        groups: dict[TensorEntry, list[str]] = {}
        for name, entry in self.state_dict.items():
            groups.setdefault(entry, []).append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]


_ZIP_ERRORS = (
    zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError,
    struct.error, zipfile.LargeZipFile,
)  # fmt: skip


def open_checkpoint(path: Path) -> LightningCheckpoint:
    """Read a .ckpt or .pt file; raises InputError where it is damaged, old or not a checkpoint."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give an existing checkpoint") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if start != b"PK\x03\x04":
        raise InputError(
            f"{path}: not a zip checkpoint of torch.save; if it is older than torch 1.6, load and "
            "save it again with a newer torch"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            sizes, prefix = _contents(path, archive)
            order = archive.read(f"{prefix}byteorder") if f"{prefix}byteorder" in sizes else b""
            program = archive.read(f"{prefix}data.pkl")
    except _ZIP_ERRORS as error:
        raise InputError(f"{path}: damaged or truncated zip ({error})") from None
    try:
        content = _Machine(program).run()
    except _Refused as error:
        raise InputError(f"{path}: its pickle is damaged or hostile ({error})") from None
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError, EOFError):
        raise InputError(f"{path}: its pickle is damaged") from None
    storages = {
        name.removeprefix(f"{prefix}data/"): size
        for name, size in sizes.items()
        if name.startswith(f"{prefix}data/")
    }
    return _interpret(path, content, storages, prefix, ">" if order == b"big" else "<")


def read(path: Path) -> FileSummary:
    """Figures of a checkpoint: its state_dict counts, optimizer states and the like do not."""
    digest = sha256_of(path)
    checkpoint = open_checkpoint(path)
    weights: dict[str, TensorEntry] = {}
    statistics: dict[str, TensorEntry] = {}
    shapes = {name: entry.shape for name, entry in checkpoint.state_dict.items()}
    for name, entry in checkpoint.state_dict.items():
        (statistics if is_running_statistic(name, shapes) else weights)[name] = entry
    counted = _first_names(weights)
    apart = distinct_elements(statistics.values())
    return FileSummary(
        path=path,
        kind="checkpoint",
        sha256=digest,
        file_bytes=path.stat().st_size,
        file_params=distinct_elements(weights.values()),
        apart={RUNNING_STATISTICS: apart} if apart else {},
        layers=layers_by_prefix(counted),
        notes=checkpoint.notes,
    )


def distinct_elements(entries: Any) -> int:
    """Elements of storage that at least one entry uses: aliases and tied weights count once."""
    by_storage: dict[str, set[TensorEntry]] = {}
    for entry in entries:
        by_storage.setdefault(entry.storage, set()).add(entry)
    total = 0
    for views in by_storage.values():
        covered, last_end = 0, 0
        for view in sorted(views, key=lambda view: view.offset):
            end = view.offset + view.extent
            covered += max(0, end - max(view.offset, last_end))
            last_end = max(last_end, end)
        # A view with gaps covers more than it uses.
        total += min(covered, sum(view.elements for view in views))
    return total


def _first_names(entries: Mapping[str, TensorEntry]) -> dict[str, int]:
    """Elements per name, aliases under their first name only."""
    first = {entry: name for name, entry in reversed(list(entries.items()))}
    return {name: entry.elements for entry, name in reversed(first.items())}


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bf16" else np.dtype(dtype).itemsize


def _contents(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, int], str]:
    """(bytes of every entry, folder within the archive), all entries stored as they are."""
    sizes = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise InputError(f"{path}: compressed or encrypted entries; torch.save writes none")
        sizes[info.filename] = info.file_size
    pickles = [name for name in sizes if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise InputError(f"{path}: a zip file without data.pkl; not a checkpoint of torch.save")
    program = min(pickles, key=len)
    if sizes[program] > _MOST_PICKLE_BYTES:
        raise InputError(f"{path}: {sizes[program]:,} bytes of pickle; refused")
    return sizes, program.removesuffix("data.pkl")


# --- the pickle machine --------------------------------------------------------------------------


class _Refused(Exception):
    """The pickle does something that no checkpoint does."""


@dataclass(frozen=True)
class _Global:
    """A name in the pickle: nothing is imported for it."""

    module: str
    name: str


@dataclass(eq=False)
class _Object:
    """What a call of an unknown name would have made."""

    kind: Any
    arguments: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class _Storage:
    dtype: str | None  # None: untyped, the tensor names the type
    key: str
    elements: int


class _Mark:
    pass


class _Machine:
    """Interprets a pickle without making anything but plain containers and descriptions."""

    def __init__(self, program: bytes) -> None:
        self.program = program
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        steps = self._steps()
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(self.program))):
            if count > _MOST_OPCODES:
                raise _Refused("it is too long")
            if opcode.name == "STOP":
                return self.stack.pop()
            step = steps.get(opcode.name)
            if step is None:
                raise _Refused(f"opcode {opcode.name}")
            step(argument)
        raise _Refused("it has no end")

    def _steps(self) -> dict[str, Callable[[Any], Any]]:
        push = self.stack.append
        literals = (
            "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
            "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING",
            "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
        )  # fmt: skip

        def nothing(_: Any) -> None:
            return

        steps: dict[str, Callable[[Any], Any]] = {
            **dict.fromkeys(literals, push),
            "PROTO": nothing,
            "FRAME": nothing,
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "MARK": lambda _: push(_Mark),
            "POP": lambda _: self.stack.pop() and None,
            "POP_MARK": lambda _: self._to_mark() and None,
            "DUP": lambda _: push(self.stack[-1]),
            "EMPTY_TUPLE": lambda _: push(()),
            "TUPLE": lambda _: push(tuple(self._to_mark())),
            "TUPLE1": lambda _: push(tuple(self._pop(1))),
            "TUPLE2": lambda _: push(tuple(self._pop(2))),
            "TUPLE3": lambda _: push(tuple(self._pop(3))),
            "EMPTY_LIST": lambda _: push([]),
            "LIST": lambda _: push(self._to_mark()),
            "EMPTY_SET": lambda _: push([]),
            "FROZENSET": lambda _: push(self._to_mark()),
            "EMPTY_DICT": lambda _: push({}),
            "DICT": lambda _: self._new_dict(),
            "APPEND": lambda _: self._extend(self._pop(1)),
            "APPENDS": lambda _: self._extend(self._to_mark()),
            "ADDITEMS": lambda _: self._extend(self._to_mark()),
            "SETITEM": lambda _: self._set_items(self._pop(2)),
            "SETITEMS": lambda _: self._set_items(self._to_mark()),
            "GET": self._recall,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "PUT": self._remember,
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "MEMOIZE": lambda _: self._remember(len(self.memo)),
            "GLOBAL": lambda text: push(_Global(*text.split(" ", 1))),
            "STACK_GLOBAL": lambda _: push(_Global(*map(str, self._pop(2)))),
            "REDUCE": lambda _: push(_call(*self._pop(2))),
            "NEWOBJ": lambda _: push(_call(*self._pop(2))),
            "NEWOBJ_EX": lambda _: push(_call(*self._pop(3)[:2])),
            "BUILD": lambda _: self._build(),
            "PERSID": lambda text: push(_storage((text,))),
            "BINPERSID": lambda _: push(_storage(self._pop(1)[0])),
        }
        return steps

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count or _Mark in self.stack[-count:]:
            raise _Refused("its stack runs empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _Mark:
                taken = self.stack[index + 1 :]
                del self.stack[index:]
                return taken
        raise _Refused("its stack has no mark")

    def _recall(self, index: int) -> None:
        self.stack.append(self.memo[int(index)])

    def _remember(self, index: int) -> None:
        self.memo[int(index)] = self.stack[-1]

    def _new_dict(self) -> None:
        pairs = self._to_mark()
        self.stack.append({})
        self._set_items(pairs)

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, _Object):
            target.items.extend(values)
        else:
            raise _Refused("it appends to what is no list")

    def _set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if len(pairs) % 2:
            raise _Refused("a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, dict):
                target[key if isinstance(key, (str, int, float, bool)) else repr(type(key))] = value
            elif isinstance(target, _Object):
                target.items.append((key, value))
            else:
                raise _Refused("it sets items of what is no dictionary")

    def _build(self) -> None:
        (state,) = self._pop(1)
        target = self.stack[-1]
        if isinstance(target, _Object):
            target.state = state
        elif not isinstance(target, (dict, list)):  # containers may carry attributes: dropped
            raise _Refused("it sets the state of what is no object")


def _storage(identifier: Any) -> _Storage:
    """('storage', class, key, location, elements) as torch.save writes it."""
    if not (isinstance(identifier, tuple) and len(identifier) == 5 and identifier[0] == "storage"):
        raise _Refused("a reference that is no storage")
    _, kind, key, _, elements = identifier
    known = isinstance(kind, _Global) and kind.name in _STORAGES
    if not known or type(elements) is not int or elements < 0 or not isinstance(key, str):
        raise _Refused("a storage of unknown kind")
    dtype = None if kind.name == "UntypedStorage" else _STORAGES[kind.name]
    return _Storage(dtype, key, elements)


def _call(function: Any, arguments: Any) -> Any:
    """What calling a name gives: tensors and containers are described, all else stays inert."""
    if not isinstance(arguments, tuple):
        raise _Refused("a call without arguments")
    if not isinstance(function, _Global):
        return _Object(function, arguments)
    where = f"{function.module}.{function.name}"
    if where in ("collections.OrderedDict", "builtins.dict", "__builtin__.dict"):
        pairs = arguments[0] if arguments else []
        return {pair[0]: pair[1] for pair in pairs} if isinstance(pairs, list) else {}
    if where in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return _tensor(*arguments[:4])
    if where == "torch._utils._rebuild_qtensor":
        return _tensor(*arguments[:4])
    if where == "torch._utils._rebuild_tensor_v3":
        dtype = arguments[6]
        return _tensor(*arguments[:4], dtype=dtype.name if isinstance(dtype, _Global) else "")
    if where in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if where == "torch._tensor._rebuild_from_type_v2":
        return _call(arguments[0], arguments[2])
    return _Object(function, arguments)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *, dtype: str = "") -> TensorEntry:
    numbers_given = isinstance(shape, tuple) and isinstance(stride, tuple) and type(offset) is int
    if not isinstance(storage, _Storage) or not numbers_given or len(shape) != len(stride):
        raise _Refused("a tensor that is described wrongly")
    if any(type(number) is not int or number < 0 for number in (offset, *shape, *stride)):
        raise _Refused("a tensor with a negative size")
    kind = storage.dtype or _DTYPES.get(dtype)
    if kind is None or (storage.dtype and dtype and _DTYPES.get(dtype) != storage.dtype):
        raise _Refused(f"a tensor of unknown type {dtype!r}")
    elements = storage.elements
    if storage.dtype is None:  # untyped storages are counted in bytes
        elements //= _itemsize(kind)
    entry = TensorEntry(shape, kind, storage.key, offset, stride, elements)
    if entry.elements and (offset + entry.extent > elements or entry.elements > elements):
        raise _Refused("a tensor larger than its storage")
    return entry


# --- from the pickle's content to a checkpoint ---------------------------------------------------


def _interpret(
    path: Path, content: Any, storages: Mapping[str, int], prefix: str, byte_order: ByteOrder
) -> LightningCheckpoint:
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no state_dict; save one with torch.save or Lightning")
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        raise InputError(f"{path}: its state_dict is no dictionary; save the weights again")
    tensors: dict[str, TensorEntry] = {}
    skipped: list[str] = []
    for name, value in state.items():
        found = dict(_nested_tensors(str(name), value, 0))
        tensors.update(found)
        if not found:
            skipped.append(str(name))
    if not tensors:
        raise InputError(f"{path}: its state_dict holds no tensors; save the weights again")
    for name, entry in tensors.items():
        size = storages.get(entry.storage)
        if size is None or size != entry.storage_elements * _itemsize(entry.dtype):
            raise InputError(
                f"{path}: the data of {name!r} is missing or has another size; the file is damaged"
            )
    parameters = _Plain().render(content.get("hyper_parameters", {}), 0)
    notes: tuple[str, ...] = ()
    if skipped and "state_dict" in content:
        notes = (f"{len(skipped)} entries of the state_dict are no tensors: {skipped[0]!r} ...",)
    return LightningCheckpoint(
        path,
        tensors,
        parameters if isinstance(parameters, dict) else {"value": parameters},
        prefix,
        byte_order,
        notes,
    )


def _nested_tensors(name: str, value: Any, depth: int) -> list[tuple[str, TensorEntry]]:
    """Tensors in a value of a state_dict; packed parameters hold theirs in tuples."""
    if isinstance(value, TensorEntry):
        return [(name, value)]
    if isinstance(value, _Object):
        value = [value.arguments, value.state]
    if depth > 5 or not isinstance(value, (list, tuple, dict)):
        return []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return [
        found
        for key, inner in list(pairs)[:10_000]
        for found in _nested_tensors(f"{name}.{key}", inner, depth + 1)
    ]


class _Plain:
    """Renders pickled values as plain Python, bounded in number and depth."""

    def __init__(self) -> None:
        self.left = _MOST_VALUES

    def render(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > _MOST_DEPTH:
            return "..."
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (bytes, bytearray)):
            return f"{len(value)} bytes"
        if isinstance(value, (list, tuple)):
            items = [self.render(item, depth + 1) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, dict):
            return {key: self.render(item, depth + 1) for key, item in value.items()}
        if isinstance(value, TensorEntry):
            return Foreign("Tensor", "torch", {"shape": value.shape})
        if isinstance(value, _Global):
            return Foreign(value.name, value.module)
        if isinstance(value, _Object):
            return self.object(value, depth)
        return Foreign(type(value).__name__.strip("_"))

    def object(self, value: _Object, depth: int) -> Any:
        kind = value.kind if isinstance(value.kind, _Global) else _Global("", "object")
        if kind.name in ("set", "frozenset", "list", "Size") and value.arguments:
            return self.render(value.arguments[0], depth + 1)  # shown by what they hold
        attributes = self.render(value.state, depth + 1)
        if isinstance(attributes, dict) and value.items:
            attributes["items"] = self.render(value.items, depth + 1)
        if not isinstance(attributes, dict):
            # Lightning's AttributeDict is a dictionary by inheritance: only items
            pairs = [item for item in value.items if isinstance(item, tuple) and len(item) == 2]
            if pairs and len(pairs) == len(value.items):
                return {str(key): self.render(item, depth + 1) for key, item in pairs}
            attributes = {}
        return Foreign(kind.name, kind.module, attributes)
