"""Reading Parquet files that may promise more than any memory holds.

A file of a megabyte can hold ten billion equal values, or a text of a megabyte ten thousand times.
What a file promises is therefore compared with what is known of it, and with the memory that is
free, before it is unpacked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.machine import free_memory

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_WIDTH = 8  # bytes of a value, at most, beside texts
_SMALL = 2**24  # bytes that are always free


def read_parquet(path: Path, rows: int | None = None) -> pa.Table:
    """Read a table as a whole.

    Parameters
    ----------
    path : Path
        The file.
    rows : int, optional
        How many rows it must have, by what is known of them.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    OSError, pyarrow.ArrowException
        If this is no such file.
    ValueError
        If it has another number of rows, or takes more than half of the free memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    kinds = (pa.string(), pa.large_string())
    texts = [field.name for field in schema if field.type in kinds]
    # Texts that repeat are in memory once as long as it is not known how long they are together.
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        stored_rows = file.metadata.num_rows
        if rows is not None and stored_rows != rows:
            raise ValueError(f"it has {stored_rows} rows instead of {rows}")
        require_memory(file, range(file.num_row_groups))
        table = file.read()
    _require_free(sum(_length(table[name]) for name in texts))
    for name in texts:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(schema.field(name).type))
    return table.replace_schema_metadata(schema.metadata)


def require_memory(file: pq.ParquetFile, groups: Iterable[int]) -> None:
    """Raise a ValueError if some row groups take more than half of the free memory."""
    needed = 0
    for number in groups:
        group = file.metadata.row_group(number)
        needed += group.total_byte_size + _WIDTH * group.num_rows * group.num_columns
    _require_free(needed)


def _require_free(needed: int) -> None:
    # Linux takes as long to say what is free as to read a small file.
    if needed > _SMALL and needed > (free := free_memory()) // 2:
        raise ValueError(
            f"it takes {needed / 1e9:.1f} GB when it is unpacked, more than half of the free "
            f"memory ({free / 1e9:.1f} GB)"
        )


def _length(column: pa.ChunkedArray) -> int:
    """Bytes of all texts of a column that is a dictionary."""
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        lengths = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
        total += pc.sum(pc.cast(lengths, "int64")).as_py() or 0
    return total
