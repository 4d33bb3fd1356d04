"""GGUF files: a header that is believed only as far as the file's size bears it out.

A file from a stranger may be cut off, or claim counts and lengths that no memory could hold. Every
claim is compared with the bytes that are there before anything of that size is made; what does not
fit is a ValueError that says where. Nothing in a GGUF file is code.
Source: the GGUF specification of the ggml project.
"""

import itertools
import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_MAGIC, _VERSIONS, _ALIGNMENT = b"GGUF", (2, 3), 32
_STRING, _ARRAY = 8, 9
# Numbers of the value types, as NumPy writes them; 7 is a bool of one byte.
_NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1",
            10: "<u8", 11: "<i8", 12: "<f8"}  # fmt: skip
# The fewest bytes that an entry, and a tensor's description, can take.
_LEAST_ENTRY, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
# More entries or longer names are no model's; they would only cost time.
_MOST, _LONGEST_NAME, _MOST_AXES = 1 << 16, 1 << 10, 4


class Tensor(NamedTuple):
    """Where a tensor lies. shape: row-major, as NumPy has it; start: first byte in the file."""

    name: str
    shape: tuple[int, ...]
    kind: str
    start: int
    nbytes: int


class File:
    """A GGUF file whose header has been read and found to fit the file.

    metadata: name -> number, string, list of strings, or array of numbers.
    tensors: name -> Tensor.
    """

    def __init__(self, path: str | Path):
        """Read the header. Raises ValueError where the file is not a whole GGUF file."""
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"no file {self.path}")
        with self.path.open("rb") as file:
            if self.path.stat().st_size < 24:
                raise ValueError(f"{self.path} is not a GGUF file: too short for a header")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.size = len(self._bytes)
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self._at = 0
        self._walk()

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32, dequantized.

        Raises ValueError for a name that is not there; NotImplementedError for a type that the
        package gguf cannot dequantize.
        """
        from gguf import GGMLQuantizationType, quants

        if name not in self.tensors:
            raise ValueError(f"{self.path} has no tensor {name!r}")
        tensor = self.tensors[name]
        stored = np.frombuffer(self._bytes, np.uint8, tensor.nbytes, tensor.start)
        rows = stored.reshape(*tensor.shape[:-1], -1)
        # A narrow type may hold anything that a float can, infinities too: that is not for NumPy
        # to warn of, but for the caller to refuse.
        with np.errstate(all="ignore"):
            return quants.dequantize(rows, GGMLQuantizationType[tensor.kind]).reshape(tensor.shape)

    def _walk(self):
        if self._take(4, "the first bytes") != _MAGIC:
            raise ValueError(f"{self.path} is not a GGUF file: it does not begin with GGUF")
        version = self._number(4, "the version")
        if version not in _VERSIONS:
            raise ValueError(f"{self.path}: expected GGUF version 2 or 3, found {version}")
        tensors = self._number(10, "the number of tensors")
        entries = self._number(10, "the number of entries")
        self._fits(entries, _LEAST_ENTRY, "entries", _MOST)
        self._fits(tensors, _LEAST_TENSOR, "tensors", _MOST)
        for number in range(entries):
            name = self._string(f"the name of entry {number}", _LONGEST_NAME)
            if name in self.metadata:
                raise ValueError(f"{self.path} has the entry {name!r} twice")
            self.metadata[name] = self._value(self._number(4, f"the type of {name!r}"), name)
        alignment = self.metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
            raise ValueError(
                f"{self.path}: general.alignment must be a power of 2 from 8 on, not {alignment!r}"
            )
        described = [self._tensor(number) for number in range(tensors)]
        first = -(-self._at // alignment) * alignment
        for tensor in described:
            if tensor.name in self.tensors:
                raise ValueError(f"{self.path} has the tensor {tensor.name!r} twice")
            self.tensors[tensor.name] = self._placed(tensor, first, alignment)
        self._apart()

    def _tensor(self, number) -> Tensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._string(f"the name of tensor {number}", _LONGEST_NAME)
        axes = self._number(4, f"the number of axes of {name!r}")
        if not 1 <= axes <= _MOST_AXES:
            raise ValueError(f"{self.path}: {name!r} must have 1 to {_MOST_AXES} axes, not {axes}")
        shape = tuple(self._number(10, f"the shape of {name!r}") for _ in range(axes))[::-1]
        code = self._number(4, f"the type of {name!r}")
        try:
            kind = GGMLQuantizationType(code)
        except ValueError:
            raise ValueError(f"{self.path}: {name!r} has the unknown type {code}") from None
        offset = self._number(10, f"the offset of {name!r}")
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        if min(shape) < 1 or shape[-1] % per_block:
            raise ValueError(
                f"{self.path}: {name!r} of shape {list(shape)} cannot be stored as {kind.name}, "
                f"whose rows are blocks of {per_block}"
            )
        # Python's integers do not overflow, however large the sizes claimed.
        return Tensor(name, shape, kind.name, offset, math.prod(shape) // per_block * block_bytes)

    def _placed(self, tensor: Tensor, first: int, alignment: int) -> Tensor:
        if tensor.start % alignment:
            raise ValueError(
                f"{self.path}: {tensor.name!r} lies at offset {tensor.start}, which is not a "
                f"multiple of {alignment}"
            )
        start = first + tensor.start
        if start + tensor.nbytes > self.size:
            raise ValueError(
                f"{self.path} is cut off or lies: {tensor.name!r} {list(tensor.shape)} should end "
                f"at byte {start + tensor.nbytes}, the file at {self.size}"
            )
        return tensor._replace(start=start)

    def _apart(self):
        placed = sorted(self.tensors.values(), key=lambda tensor: tensor.start)
        for one, other in itertools.pairwise(placed):
            if one.start + one.nbytes > other.start:
                raise ValueError(f"{self.path}: {one.name!r} and {other.name!r} overlap")

    def _value(self, kind, name):
        if kind == _STRING:
            return self._string(f"{name!r}")
        if kind == _ARRAY:
            inner = self._number(4, f"the type in {name!r}")
            count = self._number(10, f"the length of {name!r}")
            if inner == _STRING:
                self._fits(count, 8, f"strings of {name!r}")
                return [self._string(f"a string of {name!r}") for _ in range(count)]
            dtype = self._dtype(inner, name)
            self._fits(count, dtype.itemsize, f"numbers of {name!r}")
            return np.frombuffer(self._take(count * dtype.itemsize, f"{name!r}"), dtype)
        self._dtype(kind, name)
        return self._number(kind, f"{name!r}")

    def _dtype(self, kind, name) -> np.dtype:
        if kind not in _NUMBERS:
            raise ValueError(f"{self.path}: {name!r} has values of unknown type {kind}")
        return np.dtype(_NUMBERS[kind])

    def _number(self, kind, what):
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self._take(dtype.itemsize, what), dtype)[0].item()

    def _string(self, what, longest=None) -> str:
        length = self._number(10, f"the length of {what}")
        self._fits(length, 1, f"bytes of {what}", longest)
        try:
            return self._take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: {what} is not UTF-8: {error}") from error

    def _fits(self, count, least, what, most=None):
        """Refuse a count whose items could not all lie in the rest of the file."""
        if count * least > self.size - self._at or (most is not None and count > most):
            raise ValueError(
                f"{self.path} is cut off or lies: it claims {count} {what}, with "
                f"{self.size - self._at} bytes left"
            )

    def _take(self, count, what) -> bytes:
        if count > self.size - self._at:
            raise ValueError(
                f"{self.path} is cut off or lies: {what} should take {count} bytes, "
                f"{self.size - self._at} are left"
            )
        self._at += count
        return self._bytes[self._at - count : self._at]
