"""What a pickle says, as inert data: what it would build by calling something, by a table of ours or as a stand-in.

Nothing that a pickle names is imported or called. Dicts, lists, tuples, sets, text, bytes and numbers are themselves;
what a tensor is rebuilt from is a `Tensor`, a view of a `Storage`; anything else is a `Made`, which says what was asked.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

_KEYS: Final = (str, int, float, bool, bytes, type(None))
_MAX_KEY: Final = 2**60  # larger integers can be chosen to collide in a dict


class NotInert(Exception):  # noqa: N818 - named for what is wrong
    """A pickle that is broken, or does what none that holds data does."""


@attrs.frozen
class Named:
    """A class or function that the pickle names: "module.name", as text."""

    path: str


@attrs.define(eq=False)
class Made:
    """What calling `of` would have built; what was put into it since is in `state`."""

    of: Any
    arguments: Any
    state: list[Any] = attrs.field(factory=list)


@attrs.frozen
class Storage:
    """Where a tensor's elements lie: the record `key` of the file, `count` elements of the torch type `kind`."""

    kind: str
    key: str
    count: int


@attrs.frozen
class Tensor:
    """A view of a storage, in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def key_of(key: Any) -> Any:
    """What may be looked up: scalars and flat tuples of them, whose hashes take no time."""
    plain = key if type(key) is tuple else (key,)
    if len(plain) > 8 or not all(type(one) in _KEYS or isinstance(one, Named) for one in plain):
        raise NotInert("uses as a key what is neither text nor a number")
    if any(type(one) is int and abs(one) >= _MAX_KEY for one in plain):
        raise NotInert("uses an integer of more than 60 bits as a key")
    return key


def called(of: Any, arguments: Any) -> Any:
    """What a call would give, without it."""
    if type(arguments) is not tuple:
        raise NotInert("calls with what are no arguments")
    recipe = RECIPES.get(of.path) if isinstance(of, Named) else None
    return Made(of, arguments) if recipe is None else recipe(*arguments)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view that lies within its storage."""
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise NotInert("builds a tensor of what is no storage")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise NotInert(f"builds a tensor of {len(size)} dimensions and {len(stride)} strides")
    if not all(type(one) is int and 0 <= one < 2**62 for one in (offset, *size, *stride)):
        raise NotInert("builds a tensor of what are no sizes")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.count:
        raise NotInert(f"builds a tensor of {list(size)} that reaches beyond its {storage.count} elements")
    return Tensor(storage, offset, size, stride)


def _tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> Tensor:
    """Of the dtypes that have no storage class of their own; the storage counts bytes."""
    if not isinstance(storage, Storage) or not isinstance(dtype, Named):
        raise NotInert("builds a tensor of what is no storage")
    kind = dtype.path.removeprefix("torch.")
    return _tensor(Storage(kind, storage.key, storage.count // width(kind)), offset, size, stride)


def _data(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise NotInert("builds a parameter of what is no tensor")
    return tensor


def _mapping(pairs: Any = None, *_: Any) -> dict[Any, Any]:
    return {key_of(key): value for key, value in _taken(pairs)}


def _collection(items: Any = None) -> set[Any]:
    return set(map(key_of, _taken(items)))


def _taken(items: Any) -> list[Any]:
    """The items of a list, which is empty then: one that is referred to a million times is copied once."""
    if items is None:
        return []
    if not isinstance(items, list):
        raise NotInert("builds a collection of what is no list")
    found = items[:]
    items.clear()
    return found


def _sizes(sizes: Any = ()) -> tuple[Any, ...]:
    if type(sizes) is not tuple or len(sizes) > MAX_DIMENSIONS:
        raise NotInert("builds a torch.Size of what is no shape")
    return sizes


MAX_DIMENSIONS: Final = 64
KINDS: Final[Mapping[str, tuple[str, int]]] = {
    "DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1), "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8), "ComplexDoubleStorage": ("complex128", 16), "UntypedStorage": ("uint8", 1),
    "uint16": ("uint16", 2), "uint32": ("uint32", 4), "uint64": ("uint64", 8), "float8_e4m3fn": ("float8_e4m3fn", 1),
    "float8_e5m2": ("float8_e5m2", 1),
}  # fmt: skip
"""torch's dtype, and bytes to an element, of each kind of storage and of the dtypes that have none of their own."""


def width(kind: str) -> int:
    """Bytes to an element; of an unknown kind, which no tensor is made of, 1."""
    return KINDS[kind][1] if kind in KINDS else 1


RECIPES: Final[Mapping[str, Callable[..., Any]]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *_: {},
    "builtins.set": _collection,
    "__builtin__.set": _collection,
    "torch.Size": _sizes,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _data,
    "torch._utils._rebuild_parameter_with_state": _data,
}
"""What is built of what a pickle calls; all else stays a `Made`."""
