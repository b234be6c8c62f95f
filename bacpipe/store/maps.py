"""Maps (reduced embeddings) in the results tree: finding and reading them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from bacpipe.errors import ResultsError
from bacpipe.store.layout import METADATA, map_table_name, path_inside, stamped_folders
from bacpipe.store.parquet import read_parquet
from bacpipe.user_input import load_yaml

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

AXES = ("x", "y", "z")
DISTANCE = "distance_to_map"
"""Column of the distance of windows that were added to a map; NaN for those it was fitted to."""
IS_FAR = "far_from_map"
FAR = 1.0
"""Distance above which a window is unlike all that a map was fitted to; see its table."""


@dataclass(frozen=True)
class StoredMap:
    """One folder below ``dim_reduced_embeddings``.

    Attributes
    ----------
    folder : Path
    metadata : dict
        What its ``metadata.yml`` holds; ``embeddings_state`` tells whether it is stale.
    table_path : Path
        Parquet table with a row per window: x, y[, z], start, end (seconds), audiofilename,
        distance_to_map and far_from_map.
    """

    folder: Path
    metadata: dict[str, Any]
    table_path: Path

    def read(self) -> pd.DataFrame:
        """Read the table.

        Raises
        ------
        ResultsError
            If it is missing or damaged.
        """
        import pyarrow as pa

        try:
            path_inside(self.folder, self.table_path.name, what="a link")
            windows = self.metadata.get("nr_embeds_total")
            table: pd.DataFrame = read_parquet(self.table_path, windows).to_pandas()
            _check_columns(table)
            return table
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ResultsError(
                f"{self.table_path}: this map cannot be read ({error}); delete its folder and run "
                f"the dimensionality reduction again."
            ) from None


def stored_maps(parent: Path, reducer: str, dataset: str, model: str) -> Iterator[StoredMap]:
    """Find the maps that are complete, the newest first.

    Parameters
    ----------
    parent : Path
        Folder of all maps.
    reducer, dataset, model : str
        Whose maps.
    """
    for folder in stamped_folders(parent, f"{reducer}-{dataset}-{model}"):
        metadata = _read_metadata(folder / METADATA)
        table = folder / map_table_name(dataset, model)
        if metadata is not None and table.is_file():
            yield StoredMap(folder, metadata, table)


def _check_columns(table: pd.DataFrame) -> None:
    """Raise a ValueError unless the columns that readers rely on are there and full."""
    from pandas.api.types import is_numeric_dtype

    for name in ("x", "y", "start", "end", "audiofilename"):
        if list(table.columns).count(name) != 1 or table[name].isna().any():
            raise ValueError(f"its column {name!r} is missing or has empty cells")
    for name in (*AXES, "start", "end"):
        if name in table and not is_numeric_dtype(table[name]):
            raise ValueError(f"its column {name!r} holds no numbers")


def coordinates_of(table: pd.DataFrame, columns: Sequence[str] = AXES) -> dict[str, np.ndarray]:
    """Coordinates of every recording's windows, float32 of shape (windows, columns).

    `columns` are those of the table that are wanted, as far as it has them.
    """
    axes = [axis for axis in columns if axis in table]
    values = table[axes].to_numpy(np.float32)
    groups = table.groupby("audiofilename", sort=False, observed=True).indices
    return {str(name): values[rows] for name, rows in groups.items()}


def _read_metadata(path: Path) -> dict[str, Any] | None:
    """Metadata of a map of this version; None if there are none."""
    try:
        path_inside(path.parent, path.name, what="a link")
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None  # written last: the run that made this folder did not get so far
    except (OSError, ValueError, yaml.YAMLError) as error:
        logger.warning("%s: ignored, because it cannot be read (%s).", path, error)
        return None
    known = isinstance(content, dict) and "embeddings_state" in content
    return content if known else None
