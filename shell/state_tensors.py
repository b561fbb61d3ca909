"""Training state as JSON and tensors and back, exact to the bit; what cannot be told so is refused, never pickled.

In the JSON, a mapping whose first key begins with "$" stands for what JSON lacks: {"$tensor": key} for a
tensor, {"$tuple": [...]}, {"$dict": [[key, value], ...]} for keys that are not plain text, and so on.
"""

import base64
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch

from shell.pieces import AnyTensor, Piece
from shell.tensor_files import DTYPES

_PLAIN_TENSORS: Final = (torch.Tensor, torch.nn.Parameter)
_KEY_TYPES: Final = (str, int, float, bool, type(None), bytes, tuple)
_NUMPY_KINDS: Final = "biufcmMSU"
_JSON_INT_BITS: Final = 64


class StateError(ValueError):
    """State that cannot be saved or put back: the place, what is there, and the rule."""

    def __init__(self, place: str, value: str, rule: str) -> None:
        super().__init__(place, value, rule)
        self.place, self.value, self.rule = place, value, rule

    def __str__(self) -> str:
        return f"{self.place} is {self.value}; {self.rule}."


class Unsavable(StateError):  # noqa: N818 - named for what is wrong
    """A value that neither JSON nor a tensor file can hold."""


class StateMismatch(StateError):  # noqa: N818
    """Saved state that does not fit what it is to be put into; nothing was changed."""


def check_tensor(place: str, tensor: AnyTensor) -> None:
    """Raise Unsavable for a tensor that a safetensors file cannot hold."""
    if isinstance(tensor, Piece):
        tensor = torch.empty(0, dtype=tensor.dtype)
    if type(tensor) not in _PLAIN_TENSORS:
        raise Unsavable(
            place, f"a {type(tensor).__name__}", "a file holds plain tensors: gather or convert it"
        )
    if tensor.layout != torch.strided or tensor.is_meta:
        raise Unsavable(place, f"{tensor.layout} on {tensor.device}", "a file holds dense tensors with data")
    if tensor.dtype not in DTYPES:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise Unsavable(place, str(tensor.dtype), f"a file holds {kinds}: convert it")


def check_json(place: str, value: object) -> None:
    """Raise Unsavable for a value that JSON would refuse or change, except that tuples may become lists."""
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise Unsavable(f"A key of {place}", repr(key), "JSON keys are text: use state_tensors.split")
            check_json(f"{place}.{key}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(f"{place}[{index}]", item)
    elif type(value) not in (type(None), bool, int, float, str):
        raise Unsavable(place, f"a {type(value).__name__}", "a manifest holds JSON: use state_tensors.split")
    elif type(value) is int and value.bit_length() > 4096:
        raise Unsavable(place, f"an integer of {value.bit_length()} bits", "JSON holds less: use split")


def split(tree: Any) -> tuple[Any, dict[str, AnyTensor]]:
    """JSON for `tree`, and its tensors by the keys that stand for them there.

    Takes None, bool, int, float, str, bytes, dict, OrderedDict, list, tuple, set, frozenset, tensors, pieces of tensors, numpy
    arrays and scalars, of exactly these types. Tensors are neither copied nor moved; one met twice is kept once.
    """
    splitter = _Splitter()
    try:
        return splitter.encode("state", tree), splitter.tensors
    except RecursionError:
        raise Unsavable("state", "nested too deep", "state is a tree: it may not contain itself") from None


class _Splitter:
    def __init__(self) -> None:
        self.tensors: dict[str, AnyTensor] = {}
        self._seen: dict[int, str] = {}

    def encode(self, place: str, value: Any) -> Any:
        kind = type(value)
        if kind in _ENCODERS:
            return _ENCODERS[kind](self, place, value)
        if "numpy" in sys.modules and _is_numpy(value):
            return self._numpy(place, value)
        rule = "state holds None, bool, int, float, str, bytes, dict, list, tuple, set, tensors, numpy values"
        raise Unsavable(place, f"a {kind.__module__}.{kind.__qualname__}", rule)

    def tensor(self, place: str, value: AnyTensor) -> Any:
        if id(value) not in self._seen:
            check_tensor(place, value)
            plain = value.detach() if isinstance(value, torch.Tensor) else value
            self._seen[id(value)] = self._keep(place, plain)
        return {"$tensor": self._seen[id(value)]}

    def _keep(self, place: str, value: AnyTensor) -> str:
        key, number = place, 1
        while key in self.tensors:
            key, number = f"{place}~{number}", number + 1
        self.tensors[key] = value
        return key

    def items(self, place: str, values: Iterable[Any]) -> list[Any]:
        return [self.encode(f"{place}[{index}]", value) for index, value in enumerate(values)]

    def mapping(self, place: str, value: Mapping[Any, Any]) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.encode(f"{place}.{key}", item) for key, item in value.items()}
        return {"$dict": self.pairs(place, value)}

    def pairs(self, place: str, value: Mapping[Any, Any]) -> list[Any]:
        return [
            [self._key(place, key), self.encode(f"{place}[{key!r}]", item)] for key, item in value.items()
        ]

    def _key(self, place: str, key: Any) -> Any:
        if type(key) not in _KEY_TYPES:
            rule = "keys are text, numbers, None, bytes or tuples of them"
            raise Unsavable(f"A key of {place}", f"a {type(key).__name__}", rule)
        return self.encode(f"{place} key", key)

    def _numpy(self, place: str, value: Any) -> Any:
        import numpy as np

        if value.dtype.kind not in _NUMPY_KINDS:
            raise Unsavable(place, f"a numpy value of {value.dtype}", "it must hold numbers, times or text")
        data, dtype = value.tobytes(), value.dtype.str
        if isinstance(value, np.generic):
            return {"$scalar": base64.b64encode(data).decode(), "dtype": dtype}
        flat = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        return {"$array": self._keep(place, flat), "dtype": dtype, "shape": list(value.shape)}


def _is_numpy(value: object) -> bool:
    import numpy as np

    return type(value) is np.ndarray or isinstance(
        value, np.generic
    )  # no masked array: its mask would be lost


def _float(value: float) -> Any:
    finite = value - value == 0
    return value if finite else {"$float": struct.pack(">d", value).hex()}


def _unordered(splitter: _Splitter, place: str, value: Iterable[Any]) -> list[Any]:
    return splitter.items(place, sorted(value, key=lambda item: (type(item).__name__, repr(item))))


_ENCODERS: Final[Mapping[type, Callable[[_Splitter, str, Any], Any]]] = {
    type(None): lambda _, __, value: value,
    bool: lambda _, __, value: value,
    str: lambda _, __, value: value,
    int: lambda _, __, value: value if value.bit_length() <= _JSON_INT_BITS else {"$int": hex(value)},
    float: lambda _, __, value: _float(value),
    bytes: lambda _, __, value: {"$bytes": base64.b64encode(value).decode()},
    dict: _Splitter.mapping,
    OrderedDict: lambda splitter, place, value: {"$ordered": splitter.pairs(place, value)},
    list: _Splitter.items,
    tuple: lambda splitter, place, value: {"$tuple": splitter.items(place, value)},
    set: lambda splitter, place, value: {"$set": _unordered(splitter, place, value)},
    frozenset: lambda splitter, place, value: {"$frozenset": _unordered(splitter, place, value)},
    torch.Tensor: _Splitter.tensor,
    Piece: _Splitter.tensor,
    torch.nn.Parameter: _Splitter.tensor,
}


def join(json: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The tree that `split` took apart; tensors are those of `tensors`, not copies, and parameters are plain ones."""
    if isinstance(json, list):
        return [join(item, tensors) for item in json]
    if not isinstance(json, Mapping):
        return json
    tag = next(iter(json), "")
    if not tag.startswith("$"):
        return {key: join(item, tensors) for key, item in json.items()}
    if tag not in _DECODERS:
        raise StateMismatch(f"Mark {tag!r}", "unknown", f"marks are {', '.join(_DECODERS)}: is it newer?")
    try:
        return _DECODERS[tag](json, tensors)
    except StateError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        rule = f"it cannot be read back ({type(error).__name__}: {error}): was it written by a save?"
        raise StateMismatch(f"Mark {tag!r}", "not as it is written", rule) from error


def _tensor(key: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if key not in tensors:
        raise StateMismatch(f"Tensor {key!r}", "missing", "the JSON and the tensors must come from one split")
    return tensors[key]


def _array(data: bytes, dtype: str, shape: Sequence[int]) -> Any:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.kind not in _NUMPY_KINDS:  # of objects, the bytes would be taken for their addresses
        raise StateMismatch("A numpy value", f"of dtype {dtype}", "it must hold numbers, times or text")
    return np.ndarray(tuple(shape), kind, bytearray(data) or bytearray(1))


def _pairs(items: Any, tensors: Mapping[str, torch.Tensor]) -> list[tuple[Any, Any]]:
    return [(join(key, tensors), join(item, tensors)) for key, item in items]


_DECODERS: Final[Mapping[str, Callable[[Any, Mapping[str, torch.Tensor]], Any]]] = {
    "$tensor": lambda node, tensors: _tensor(node["$tensor"], tensors),
    "$int": lambda node, _: int(node["$int"], 16),
    "$float": lambda node, _: struct.unpack(">d", bytes.fromhex(node["$float"]))[0],
    "$bytes": lambda node, _: base64.b64decode(node["$bytes"]),
    "$dict": lambda node, tensors: dict(_pairs(node["$dict"], tensors)),
    "$ordered": lambda node, tensors: OrderedDict(_pairs(node["$ordered"], tensors)),
    "$tuple": lambda node, tensors: tuple(join(node["$tuple"], tensors)),
    "$set": lambda node, tensors: set(join(node["$set"], tensors)),
    "$frozenset": lambda node, tensors: frozenset(join(node["$frozenset"], tensors)),
    "$scalar": lambda node, _: _array(base64.b64decode(node["$scalar"]), node["dtype"], ())[()],
    "$array": lambda node, tensors: _array(
        _tensor(node["$array"], tensors).cpu().numpy().tobytes(), node["dtype"], node["shape"]
    ),
}
