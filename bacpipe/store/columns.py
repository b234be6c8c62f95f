"""Whether a Parquet table has the columns that its reader relies on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def predictions_kinds() -> dict[str, Any]:
    """Columns of one recording's predictions, and their Arrow types."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    return {"window": pa.int32(), "class": text, "score": pa.float32()}


def detections_kinds() -> dict[str, Any]:
    """Columns of the table over all recordings, and their Arrow types."""
    import pyarrow as pa

    kinds = predictions_kinds()
    times = {"start": pa.float64(), "end": pa.float64()}
    return {"audiofilename": kinds["class"], **times, **kinds}


def require_columns(schema: Any, kinds: Mapping[str, Any]) -> None:
    """Make sure that a file has certain columns.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the file.
    kinds : mapping of str to pyarrow.DataType
        The columns.

    Raises
    ------
    ValueError
        If one is missing, there twice, or of another type.
    """
    for name, kind in kinds.items():
        places = schema.get_all_field_indices(name)
        if len(places) != 1:
            raise ValueError(f"it has {len(places)} columns {name!r}")
        found = schema.field(places[0]).type
        if found != kind:
            raise ValueError(f"its column {name!r} holds {found} instead of {kind}")


def require_values(table: Any) -> None:
    """Raise a ValueError if a cell of a table is empty."""
    for name in table.column_names:
        if table[name].null_count:
            raise ValueError(f"its column {name!r} has empty cells")


def require_windows(window: np.ndarray, count: int) -> None:
    """Raise a ValueError unless all windows are windows of a recording that has `count`."""
    if len(window) and not (window.min() >= 0 and window.max() < count):
        raise ValueError(f"it is about windows that the recording does not have, of {count}")
