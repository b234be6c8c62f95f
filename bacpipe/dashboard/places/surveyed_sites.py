"""Where and when a model found what: sites, species by site, activity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bacpipe.dashboard.shared.recognisers import recogniser_of, recognisers_of
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import ResultsNotFoundError
from bacpipe.exports.survey import survey_table
from bacpipe.labels.activity import Activity, class_activity
from bacpipe.places.positions import Position
from bacpipe.recognisers.recogniser import RecogniserResults
from bacpipe.store.loader import Loader
from bacpipe.store.whereabouts import Whereabouts

if TYPE_CHECKING:
    import pandas as pd


class SiteSummary(NamedTuple):
    """One site.

    Attributes
    ----------
    name : str
    position : Position or None
        None where it is not known.
    recordings : int
    """

    name: str
    position: Position | None
    recordings: int


class SurveyedSites(NamedTuple):
    """What a model found at each site.

    Attributes
    ----------
    results : ModelResults
    sites : list of SiteSummary
        Sorted by name; a recorder that was moved counts where it was first.
    survey : pandas.DataFrame
        What `bacpipe.survey_table` returns by site; without rows if nothing was found.
    problem : str
        Why there is nothing of a classifier; '' otherwise.
    """

    results: ModelResults
    sites: list[SiteSummary]
    survey: pd.DataFrame
    problem: str

    @property
    def species(self) -> list[str]:
        """What was found anywhere, the most windows first."""
        named = self.survey[self.survey["common_name"] != ""]  # one row without tells the effort
        total = named.groupby("common_name")["windows"].sum()
        return [str(name) for name in total.sort_values(ascending=False, kind="stable").index]

    def by_site(self, column: str = "detections") -> pd.DataFrame:
        """Species by site: a row for each species, in the order of `species`."""
        table = self.survey.pivot(index="common_name", columns="site", values=column)
        return table.loc[self.species]

    def hours(self) -> dict[str, float]:
        """Hours that were listened to at each site."""
        return {
            str(site): float(hours)
            for site, hours in self.survey.groupby("site")["hours_listened"].first().items()
        }


CLASSIFIER = "classifier"
_RECOGNISER = "recogniser_"


def sources(results: ModelResults) -> dict[str, str]:
    """Who can have found something, with titles for people: as in Predictions, without probes."""
    titles = {}
    if any(entry.predictions for entry in results.loader.entries.values()):
        titles[CLASSIFIER] = "own classifier"
    return titles | {
        f"{_RECOGNISER}{name}": f"recogniser {name}" for name in recognisers_of(results)
    }


def _loader(results: ModelResults, source: str) -> Loader:
    """Loader of the detections of a source."""
    if not source.startswith(_RECOGNISER):
        return results.loader
    recogniser = recogniser_of(results, source.removeprefix(_RECOGNISER))
    return RecogniserResults(recogniser, results.loader)


def read_surveyed_sites(results: ModelResults, source: str, min_score: float) -> SurveyedSites:
    """Read it; a model without a classifier has sites only."""
    import pandas as pd

    where = Whereabouts(results.loader)
    counts: dict[str, int] = {}
    positions: dict[str, Position | None] = {}
    for name in results.recordings:
        place = where.of(name)
        counts[place.site] = counts.get(place.site, 0) + 1
        if positions.get(place.site) is None:
            known = place.latitude is not None and place.longitude is not None
            positions[place.site] = (
                Position(float(place.latitude or 0), float(place.longitude or 0)) if known else None
            )
    sites = [SiteSummary(name, positions[name], counts[name]) for name in sorted(counts)]
    try:
        survey, problem = survey_table(_loader(results, source), by="site", min_score=min_score), ""
    except ResultsNotFoundError as error:
        columns = ["site", "common_name", "scientific_name", "detections", "windows",
                   "best_score", "windows_listened", "hours_listened"]  # fmt: skip
        survey, problem = pd.DataFrame({name: [] for name in columns}), str(error)
    return SurveyedSites(results, sites, survey, problem)


def has_found(results: ModelResults, source: str, species: str) -> bool:
    """Whether a source has found a species, or can find it, whatever the score."""
    if source.startswith(_RECOGNISER):
        return species in recogniser_of(results, source.removeprefix(_RECOGNISER)).classes
    try:
        return species in results.predictions.names
    except ResultsNotFoundError:
        return False


def read_activity(
    results: ModelResults,
    source: str,
    by: str,
    classes: Sequence[str],
    min_score: float,
    most: int,
) -> Activity:
    """When classes were found; the most frequent ones unless some are chosen.

    Raises
    ------
    ResultsNotFoundError
        If no recording tells when, or for the sun where, it was made.
    """
    return class_activity(
        _loader(results, source), by, classes=list(classes) or None, most=most, threshold=min_score
    )
