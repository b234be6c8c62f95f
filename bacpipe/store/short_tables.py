"""Parquet files of a few predictions, written without Arrow.

Arrow takes longer for a table of three rows than a small model for its window, because it goes
through megabytes of code that the model has pushed out of the processor's cache.  These files have
the columns and types that Arrow would write, one page for each column, without compression,
dictionary and statistics, as the Parquet format (https://parquet.apache.org/docs/file-format)
and Thrift's compact protocol define them.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

MOST_ROWS = 256
"""Longer tables are smaller with the dictionaries and the compression of Arrow."""

_MAGIC = b"PAR1"
_I32, _I64, _TEXT, _LIST, _STRUCT = 5, 6, 8, 9, 12
_INT32, _FLOAT, _BYTE_ARRAY = 1, 4, 6
_REQUIRED, _UTF8, _PLAIN, _RLE, _UNCOMPRESSED, _DATA_PAGE = 0, 0, 0, 3, 0, 0
_COLUMNS = ((b"window", _INT32), (b"class", _BYTE_ARRAY), (b"score", _FLOAT))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _integer(number: int) -> bytes:
    return _varint(2 * number)  # all are positive; the last bit would be the sign


def _text(text: bytes) -> bytes:
    return _varint(len(text)) + text


def _list(kind: int, items: Sequence[bytes]) -> bytes:
    return bytes([len(items) << 4 | kind]) + b"".join(items)


def _struct(*fields: tuple[int, int, bytes]) -> bytes:
    """Fields as (number, type, value), in the order of their numbers."""
    parts, last = [], 0
    for number, kind, value in fields:
        parts += [bytes([(number - last) << 4 | kind]), value]
        last = number
    return b"".join([*parts, b"\0"])


def _schema(columns: Iterable[tuple[bytes, int]]) -> bytes:
    root = _struct((4, _TEXT, _text(b"schema")), (5, _I32, _integer(len(_COLUMNS))))
    elements = [root]
    for name, kind in columns:
        fields = [(1, _I32, _integer(kind)), (3, _I32, _integer(_REQUIRED))]
        fields.append((4, _TEXT, _text(name)))
        if kind == _BYTE_ARRAY:
            fields.append((6, _I32, _integer(_UTF8)))
        elements.append(_struct(*fields))
    return _list(_STRUCT, elements)


class ShortTables:
    """Writes tables of the columns window (int32), class (a dictionary of texts), score (float32).

    Parameters
    ----------
    metadata : mapping of str to str
        Of the schema, as Arrow would keep it.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        # All of the footer that does not depend on the rows.
        self._begin = b"\x15" + _integer(2) + b"\x19" + _schema(_COLUMNS) + b"\x16"
        self._pairs = _pairs({"ARROW:schema": _arrow_schema(metadata), **metadata})
        self._end = b"\x18" + _text(b"bacpipe") + b"\0"

    def encode(
        self,
        window: np.ndarray,
        label: Sequence[str],
        score: np.ndarray,
        more: Mapping[str, str] | None = None,
    ) -> bytes:
        """File of a table.

        Parameters
        ----------
        window : np.ndarray, int32, shape (n,)
        label : sequence of n str
        score : np.ndarray, float32, shape (n,)
        more : mapping of str to str, optional
            Metadata of this table alone.
        """
        rows = len(label)
        texts = [name.encode() for name in label]
        values = (
            window.astype("<i4", copy=False).tobytes(),
            b"".join([struct.pack("<I", len(text)) + text for text in texts]),
            score.astype("<f4", copy=False).tobytes(),
        )
        pages, chunks, place = [_MAGIC], [], len(_MAGIC)
        for (name, kind), data in zip(_COLUMNS, values, strict=True) if rows else ():
            page = _page(rows, len(data)) + data
            chunks.append(_chunk(name, kind, rows, place, len(page)))
            pages.append(page)
            place += len(page)
        group = _struct(
            (1, _LIST, _list(_STRUCT, chunks)),
            (2, _I64, _integer(place - len(_MAGIC))),
            (3, _I64, _integer(rows)),
        )
        groups = _list(_STRUCT, [group] if rows else [])
        described = _list(_STRUCT, [*self._pairs, *_pairs(more or {})])
        footer = b"".join(
            [self._begin, _integer(rows), b"\x19", groups, b"\x19", described, self._end]
        )
        return b"".join([*pages, footer, struct.pack("<I", len(footer)), _MAGIC])


def _pairs(metadata: Mapping[str, str]) -> list[bytes]:
    return [
        _struct((1, _TEXT, _text(key.encode())), (2, _TEXT, _text(value.encode())))
        for key, value in metadata.items()
    ]


@functools.lru_cache(512)  # most tables of a run have few rows, of the same sizes
def _page(rows: int, size: int) -> bytes:
    header = _struct(
        (1, _I32, _integer(rows)),
        (2, _I32, _integer(_PLAIN)),
        (3, _I32, _integer(_RLE)),
        (4, _I32, _integer(_RLE)),
    )
    return _struct(
        (1, _I32, _integer(_DATA_PAGE)),
        (2, _I32, _integer(size)),
        (3, _I32, _integer(size)),
        (5, _STRUCT, header),
    )


@functools.lru_cache(512)
def _chunk(name: bytes, kind: int, rows: int, place: int, size: int) -> bytes:
    description = _struct(
        (1, _I32, _integer(kind)),
        (2, _LIST, _list(_I32, [_integer(_PLAIN), _integer(_RLE)])),
        (3, _LIST, _list(_TEXT, [_text(name)])),
        (4, _I32, _integer(_UNCOMPRESSED)),
        (5, _I64, _integer(rows)),
        (6, _I64, _integer(size)),
        (7, _I64, _integer(size)),
        (9, _I64, _integer(place)),
    )
    return _struct((2, _I64, _integer(place)), (3, _STRUCT, description))


def _arrow_schema(metadata: Mapping[str, str]) -> str:
    """By what Arrow knows the types that Parquet has not, such as dictionaries."""
    import pyarrow as pa

    fields = [
        pa.field("window", pa.int32(), nullable=False),
        pa.field("class", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
    return base64.b64encode(
        pa.schema(fields, metadata=dict(metadata)).serialize().to_pybytes()
    ).decode()
