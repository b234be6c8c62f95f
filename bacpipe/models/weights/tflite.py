"""Read the constants of a TensorFlow Lite model without TensorFlow.

A ``.tflite`` file is a FlatBuffer: tables that find their fields through a small offset
table, and vectors with a length in front.  Only the few fields are read that are needed to
walk the operators in the order of execution and to get at the weights they use, see
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bacpipe.errors import CheckpointError, CheckpointNotFoundError

# Builtin operator codes of the schema.
ADD = 0
CONV_2D = 3
DEPTHWISE_CONV_2D = 4
DEQUANTIZE = 6
FULLY_CONNECTED = 9
MUL = 18
SUB = 41
POW = 78

Values = NDArray[np.float32] | NDArray[np.float16]

_IDENTIFIER = b"TFL3"
_TYPES = {0: "<f4", 1: "<f2"}  # float32 and float16
# Offsets are 32 bit, and those of the vtables signed.
_MAX_FILE_BYTES = 2**31
# Vectors may overlap in a hostile file, so a length that fits the file is no bound on the work.
_MAX_TABLES = 10_000
_MAX_OPERANDS = 32
_MAX_RANK = 8

# Where the fields stand in the tables of the schema.
_MODEL_OPERATOR_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 1, 2, 4
_SUBGRAPH_TENSORS, _SUBGRAPH_OPERATORS = 0, 3
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER = 0, 1, 2
_OPERATOR_CODE_INDEX, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_CODE_DEPRECATED, _CODE_BUILTIN = 0, 3
_BUFFER_DATA = 0


@dataclass(frozen=True)
class Operator:
    """One operator of the graph.

    Attributes
    ----------
    code : int
        Builtin operator code, for example `CONV_2D`.
    constants : tuple of numpy.ndarray or None
        One entry per input: the values when the file holds them as float32 or float16 (which
        the file's own DEQUANTIZE brings to float32), None for everything computed at run time
        or of another type.  They are read-only views on the file's bytes.

    """

    code: int
    constants: tuple[Values | None, ...]


class _Damaged(Exception):
    """The bytes do not make a TFLite model; the text says where."""


class _Bytes:
    """Bounds-checked access to the tables and vectors of a FlatBuffer."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def unpack(self, layout: str, position: int) -> int:
        """Read one little-endian integer."""
        if position < 0 or position + struct.calcsize(layout) > len(self.data):
            raise _Damaged(f"an offset points to byte {position}, outside the file")
        value: int = struct.unpack_from(layout, self.data, position)[0]
        return value

    def field(self, table: int, number: int) -> int | None:
        """Position of a field of a table, None when it is absent (and so has its default)."""
        vtable = table - self.unpack("<i", table)
        entry = 4 + 2 * number
        if entry + 2 > self.unpack("<H", vtable):
            return None
        offset = self.unpack("<H", vtable + entry)
        return table + offset if offset else None

    def scalar(self, table: int, number: int, layout: str) -> int:
        """Value of an integer field whose default is 0."""
        position = self.field(table, number)
        return 0 if position is None else self.unpack(layout, position)

    def vector(self, table: int, number: int, item_bytes: int) -> tuple[int, int]:
        """Position of the first item, and number of items, of a vector field."""
        position = self.field(table, number)
        if position is None:
            return 0, 0
        start = position + self.unpack("<I", position)
        count = self.unpack("<I", start)
        if start + 4 + count * item_bytes > len(self.data):
            raise _Damaged(f"a list of {count} items at byte {start} runs past the end")
        return start + 4, count

    def integers(self, table: int, number: int, most: int) -> tuple[int, ...]:
        """Items of a vector of int32."""
        start, count = self.vector(table, number, 4)
        if count > most:
            raise _Damaged(f"a list at byte {start} has {count} items, at most {most} make sense")
        return struct.unpack_from(f"<{count}i", self.data, start)

    def tables(self, table: int, number: int) -> list[int]:
        """Positions of the tables of a vector."""
        start, count = self.vector(table, number, 4)
        if count > _MAX_TABLES:
            raise _Damaged(f"a list at byte {start} has {count} parts, at most {_MAX_TABLES} do")
        at = range(start, start + 4 * count, 4)
        return [item + self.unpack("<I", item) for item in at]


def read_operators(path: str | Path) -> list[Operator]:
    """Read the operators of a TFLite model and the constants they take.

    Parameters
    ----------
    path : str or pathlib.Path
        A ``.tflite`` file with one subgraph.

    Returns
    -------
    list of Operator
        In order of execution.

    Raises
    ------
    CheckpointNotFoundError
        When there is no such file.
    CheckpointError
        When the file cannot be read, is truncated or is no TFLite model.

    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is no file; name a TFLite model.")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise CheckpointError(f"{path} is too large for a TFLite model (over 2 GiB).")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointNotFoundError(f"The TFLite model {path} does not exist.") from error
    except OSError as error:
        raise CheckpointError(
            f"The TFLite model {path} cannot be read: {error.strerror or error}."
        ) from error
    try:
        return list(_operators(_Bytes(data)))
    except _Damaged as error:
        raise CheckpointError(
            f"{path} is damaged or no TFLite model ({error}); fetch the file again."
        ) from error


def _operators(file: _Bytes) -> Iterator[Operator]:
    """Walk the only subgraph."""
    if file.data[4:8] != _IDENTIFIER:
        raise _Damaged("it lacks the mark TFL3 at byte 4")
    model = file.unpack("<I", 0)
    subgraphs = file.tables(model, _MODEL_SUBGRAPHS)
    if len(subgraphs) != 1:
        raise _Damaged(f"it holds {len(subgraphs)} graphs instead of 1")
    buffers = file.tables(model, _MODEL_BUFFERS)
    tensors = file.tables(subgraphs[0], _SUBGRAPH_TENSORS)
    # The code outgrew its first field of 8 bits: the larger of the two holds.
    codes = [
        max(file.scalar(code, _CODE_DEPRECATED, "<b"), file.scalar(code, _CODE_BUILTIN, "<i"))
        for code in file.tables(model, _MODEL_OPERATOR_CODES)
    ]
    dequantized: dict[int, Values | None] = {}
    for operator in file.tables(subgraphs[0], _SUBGRAPH_OPERATORS):
        index = file.scalar(operator, _OPERATOR_CODE_INDEX, "<I")
        inputs = file.integers(operator, _OPERATOR_INPUTS, _MAX_OPERANDS)
        if index >= len(codes) or any(number >= len(tensors) for number in inputs):
            raise _Damaged(f"the operator at byte {operator} names a part that is not there")
        # An input of -1 is an optional one left out.
        constants = tuple(
            None
            if number < 0
            else dequantized[number]
            if number in dequantized
            else _constant(file, tensors[number], buffers)
            for number in inputs
        )
        if codes[index] == DEQUANTIZE:
            outputs = file.integers(operator, _OPERATOR_OUTPUTS, _MAX_OPERANDS)
            dequantized |= dict(zip(outputs, constants, strict=False))
        yield Operator(codes[index], constants)


def _constant(file: _Bytes, tensor: int, buffers: list[int]) -> Values | None:
    """Values of a float32 or float16 tensor that are stored in the file."""
    number = file.scalar(tensor, _TENSOR_BUFFER, "<I")
    kind = _TYPES.get(file.scalar(tensor, _TENSOR_TYPE, "<b"))
    if kind is None:
        return None
    if number >= len(buffers):
        raise _Damaged(f"the tensor at byte {tensor} names buffer {number}, which is not there")
    start, count = file.vector(buffers[number], _BUFFER_DATA, 1)
    if not count:
        return None
    shape = file.integers(tensor, _TENSOR_SHAPE, _MAX_RANK)
    size = np.dtype(kind).itemsize
    if min(shape, default=0) < 0 or size * math.prod(shape) != count:
        raise _Damaged(f"the tensor at byte {tensor} of shape {shape} has {count} bytes")
    values: Values = np.frombuffer(file.data, kind, count // size, start).reshape(shape)
    return values
