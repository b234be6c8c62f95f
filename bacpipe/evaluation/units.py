"""What splits and intervals never divide: a recording, or all recordings of a site.

The site of a recording is what detections tables call so: as the table of sites names it, else its
folder.  Stored windows carry it in the column ``site``; those of an older bacpipe have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bacpipe.evaluation.metrics import Groups, group_by
from bacpipe.places.sites import folder_of
from bacpipe.store.loader import Loader
from bacpipe.store.whereabouts import Whereabouts

if TYPE_CHECKING:
    import pyarrow as pa

SITE = "site"

NamedSites: TypeAlias = Mapping[str, str]
"""Site of every recording whose site is not its folder."""


def named_sites(loader: Loader, recordings: Iterable[str]) -> dict[str, str]:
    """Sites of recordings of a loader, without those that are the recording's folder."""
    if not loader.clock.sites.named:  # no recording need be looked at
        return {}
    where = Whereabouts(loader)
    sites = {name: where.of(name).site for name in recordings}
    return {name: site for name, site in sites.items() if site != folder_of(name)}


def units_of(recordings: np.ndarray, strategy: str, sites: NamedSites) -> np.ndarray:
    """Site of every recording for the strategy 'site', else the recordings; str, shape (n,)."""
    names = recordings.tolist()
    if strategy == "site":
        site_of = {name: sites.get(name) or folder_of(name) for name in set(names)}
        names = [site_of[name] for name in names]
    return np.array(names, dtype=str)


def units_left_out(
    recordings: np.ndarray | None, n_windows: int, strategy: str, sites: NamedSites
) -> Groups:
    """What intervals leave out as a whole, as training and testing never shared it."""
    unit = "site" if strategy == "site" else "recording"
    names = None if recordings is None else units_of(recordings, unit, sites)
    return group_by(names, n_windows, unit)


def sites_in(table: pa.Table) -> dict[str, str]:
    """What `named_sites` gave, of stored windows; empty where they have none."""
    if SITE not in table.column_names:
        return {}
    pairs = set(zip(table["audiofilename"].to_pylist(), table[SITE].to_pylist(), strict=True))
    return {name: site for name, site in pairs if site != folder_of(name)}
