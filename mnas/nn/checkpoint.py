"""Read checkpoints of torch.save without running any code that they name.

A pickle calls functions by name. This reader never imports a name: torch's own functions for tensors become
descriptions, a class becomes an empty placeholder, and calling any other function is an error. So other objects beside
the weights (settings of any class, NumPy's numbers, states of optimizers) are harmless and need not be rejected.
"""

import io
import math
import pickle
import struct
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mnas.readers import open_regular

_MAGIC = 0x1950A86A20F9469CFC6C  # first value of files that are not archives
_MOST_PICKLE_BYTES = 16_000_000
_STREAM = ("magic number", "version", "machine", "what was saved", "keys of its storages")
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}  # fmt: skip
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _STORAGES.values()}
# The results of these functions from data to data are not needed, so they become placeholders like classes.
_HARMLESS = {
    "builtins": {"set", "frozenset", "complex", "slice", "range", "bytearray", "object", "list", "dict", "tuple", "int",
                 "float", "str", "bytes", "bool"},
    "collections": {"defaultdict", "deque", "namedtuple"},
    "copyreg": {"_reconstructor", "__newobj__"},
    "_codecs": {"encode"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "functools": {"partial"},
    "torch": {"device"},
}  # fmt: skip


class WouldRunError(ValueError):
    """A pickle calls a function; the message is the function's name."""


Read = Callable[[int, int], bytes]
"""Function (start, number of bytes) -> that part of a storage, shorter if the storage ends before."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The location of a tensor in a file."""

    read: Read
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def extent(self) -> int:
        """Number of elements in the storage from the tensor's first to its last."""
        if math.prod(self.shape) == 0:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def tensor(self) -> Tensor:
        """Read the tensor. Raises ValueError if its storage is incomplete."""
        numbers = self.extent
        if math.prod(self.shape) > numbers:
            raise ValueError(f"a tensor of shape {self.shape} must not repeat its numbers")
        if numbers == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        width = self.dtype.itemsize
        content = bytearray(self.read(self.offset * width, numbers * width))
        if len(content) != numbers * width:
            raise ValueError(f"a tensor of shape {self.shape} must lie in its storage")
        return torch.frombuffer(content, dtype=self.dtype).as_strided(self.shape, self.stride).clone()


class Placeholder(dict[Any, Any]):
    """An object of an unknown class; it keeps the items of a dictionary."""

    name = ""
    """Name of the class."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()

    def append(self, item: Any) -> None:
        """Do nothing."""

    def extend(self, items: Any) -> None:
        """Do nothing."""


def read_checkpoint(path: Path) -> Any:
    """Return the content of a file of torch.save: mappings, lists, plain values, `StoredTensor` and `Placeholder`.

    Raises:
        WouldRunError: the file calls a function.
        OSError, ValueError, ...: the file is damaged.
    """
    with open_regular(path) as file:
        archive = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return _of_archive(file, path) if archive else _of_stream(file)


def _of_archive(file: BinaryIO, path: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError("an archive of torch.save must contain one data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise ValueError("it is TorchScript")

    def read(name: str, start: int = 0, size: int = _MOST_PICKLE_BYTES + 1) -> bytes:
        with open_regular(path) as again:
            return _entry(again, entries[folder + name], start, size)

    if f"{folder}byteorder" in entries and read("byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    content = read("data.pkl")
    if len(content) > _MOST_PICKLE_BYTES:
        raise ValueError(f"its pickle must have at most {_MOST_PICKLE_BYTES:,} bytes")
    return _Reader(io.BytesIO(content), lambda key: lambda start, size: read(f"data/{key}", start, size)).load()


def _entry(file: BinaryIO, info: zipfile.ZipInfo, start: int, size: int) -> bytes:
    """Return a part of an entry directly from the archive, as torch does not compress and may omit checksums."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError("an archive of torch.save must not be compressed")
    file.seek(info.header_offset)
    head = file.read(30)
    if head[:4] != b"PK\x03\x04":
        raise ValueError("an entry of the archive is not where it should be")
    name, extra = struct.unpack("<HH", head[26:30])
    file.seek(name + extra, io.SEEK_CUR)
    place, end = file.tell(), file.seek(0, io.SEEK_END)
    if info.file_size > end - place:
        raise ValueError("an entry of the archive is cut off")
    file.seek(place + start)
    return file.read(max(0, min(size, info.file_size - start)))


def _of_stream(file: BinaryIO) -> Any:
    """Return the content of a file from before torch 1.6: successive pickles, then the bytes of the storages."""
    storages: dict[str, bytes] = {}
    dtypes: dict[str, torch.dtype] = {}
    limited = _Limited(file)

    def place_of(key: str) -> Read:
        return lambda start, size: storages[key][start : start + size]

    magic, _, _, saved, keys = (_Reader(limited, place_of, dtypes).load() for _ in _STREAM)
    if magic != _MAGIC:
        raise ValueError("torch.save did not write it")
    place = file.tell()
    room = file.seek(0, io.SEEK_END) - place
    file.seek(place)
    for key in keys:
        (numbers,) = struct.unpack("<q", file.read(8))
        size = numbers * dtypes[key].itemsize
        if not 0 <= size <= room:
            raise ValueError("a storage is cut off")
        storages[key] = file.read(size)
        if len(storages[key]) < size:
            raise ValueError("a storage is cut off")
    return saved


class _Limited:
    """The pickles at the start of a file, with a limit on their size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._room = _MOST_PICKLE_BYTES

    def read(self, size: int) -> bytes:
        return self._counted(self._file.read(max(0, min(size, self._room + 1))))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._room + 1))

    def _counted(self, part: bytes) -> bytes:
        self._room -= len(part)
        if self._room < 0:
            raise ValueError(f"its pickles must have at most {_MOST_PICKLE_BYTES:,} bytes")
        return part


# Replacements of names


@dataclass(frozen=True, slots=True)
class _Storage:
    read: Read
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Function:
    """A named function, which raises WouldRunError when it is called."""

    name: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        raise WouldRunError(self.name)


@dataclass(frozen=True, slots=True)
class _Rebuild:
    """One of torch's functions that make a tensor from a storage."""

    dtype_given: bool

    def __call__(self, storage: _Storage, offset: int, shape: Any, stride: Any, *rest: Any) -> StoredTensor:
        if not isinstance(storage, _Storage) or not all(
            type(n) is int and 0 <= n < 2**62 for n in (offset, *shape, *stride)
        ):
            raise ValueError("a tensor must have a storage, an offset, a shape and strides")
        dtype = rest[2] if self.dtype_given and len(rest) > 2 else storage.dtype
        if not isinstance(dtype, torch.dtype) or len(shape) != len(stride) or len(shape) > 64:
            raise ValueError("a tensor must have a type, and as many strides as dimensions")
        return StoredTensor(storage.read, dtype, offset, tuple(shape), tuple(stride))


class _First:
    """A wrapper that is replaced by its first argument: a parameter by its tensor, a shape by its sizes."""

    __slots__ = ()

    def __call__(self, first: Any = (), *rest: Any) -> Any:
        return first


class _Subclass:
    """`torch._tensor._rebuild_from_type_v2(function, class, arguments, state)`."""

    __slots__ = ()

    def __call__(self, function: Any, kind: Any, arguments: Any, *rest: Any) -> Any:
        return function(*arguments)


class _Mapping:
    """collections.OrderedDict, whose items follow."""

    __slots__ = ()

    def __call__(self, pairs: Any = (), *rest: Any) -> dict[Any, Any]:
        items: dict[Any, Any] = {}
        for pair in pairs:
            _put(items, *pair)
        return items


_REPLACEMENTS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _Rebuild(False),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(False),
    ("torch._utils", "_rebuild_tensor_v3"): _Rebuild(True),
    ("torch._utils", "_rebuild_parameter"): _First(),
    ("torch._utils", "_rebuild_parameter_with_state"): _First(),
    ("torch.nn.parameter", "Parameter"): _First(),
    ("torch._tensor", "_rebuild_from_type_v2"): _Subclass(),
    ("torch", "Size"): _First(),
    ("collections", "OrderedDict"): _Mapping(),
}


def _put(mapping: Any, key: Any, value: Any) -> None:
    """Set an item, but only for plain keys, as the hash of nested tuples may take forever."""
    if isinstance(key, str | int | float | bytes | None) and isinstance(mapping, dict):
        mapping[key] = value


_InPython: Any = pickle._Unpickler  # the C version allocates any size that a file states


class _Reader(_InPython):  # type: ignore[misc]
    def __init__(self, file: Any, place: Callable[[str], Read], dtypes: dict[str, torch.dtype] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self._place, self._dtypes = place, {} if dtypes is None else dtypes
        self._classes: dict[str, type[Placeholder]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a name without importing it."""
        module, name = NAME_MAPPING.get((module, name), (module, name))  # protocol 2 uses names of Python 2
        module = IMPORT_MAPPING.get(module, module)
        if replacement := _REPLACEMENTS.get((module, name)):
            return replacement
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        full = f"{module}.{name}"
        last = name.rpartition(".")[2].lstrip("_")
        data = name in _HARMLESS.get(module, ()) or module.split(".")[0] == "numpy" or name.startswith("_rebuild")
        if not data and not last[:1].isupper():
            return _Function(full)
        if full not in self._classes:
            self._classes[full] = type("Unknown", (Placeholder,), {"name": full})
        return self._classes[full]

    def persistent_load(self, pid: Any) -> Any:
        """Return the replacement of a storage."""
        if isinstance(pid, tuple) and len(pid) > 2 and pid[0] == "module":
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise ValueError("a storage must have a type and a key")
        key = str(pid[2])
        self._dtypes[key] = pid[1].dtype
        return _Storage(self._place(key), pid[1].dtype)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], key, value)

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _put(self.stack[-1], key, value)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        for key, value in zip(items[::2], items[1::2], strict=True):
            _put(self.stack[-1], key, value)

    def _drop_items(self) -> None:
        self.pop_mark()

    def _no_set(self) -> None:
        self.pop_mark()
        self.append(None)

    def _drop_state(self) -> None:
        self.stack.pop()

    # This omits opcodes that import, that allocate before they read, and those of Python 2.
    dispatch = {
        code: handler
        for code, handler in _InPython.dispatch.items()
        if bytes([code]) not in {
            pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.BYTEARRAY8,
            pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
        }
    } | {
        pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items, pickle.DICT[0]: _dict,
        pickle.ADDITEMS[0]: _drop_items, pickle.FROZENSET[0]: _no_set, pickle.BUILD[0]: _drop_state,
    }  # fmt: skip


def read_bytes(tensors: Mapping[str, StoredTensor | Tensor]) -> int:
    """Return the number of bytes read for all tensors, counting shared ones repeatedly."""
    stored = [value for value in tensors.values() if isinstance(value, StoredTensor)]
    return sum(max(value.extent, math.prod(value.shape)) * value.dtype.itemsize for value in stored)
