"""Places: sites on a map, species by site as in the survey, activity by clock and sun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bokeh.util.warnings import BokehUserWarning

import bacpipe
from bacpipe.dashboard.places.surveyed_sites import CLASSIFIER, read_surveyed_sites
from bacpipe.dashboard.server import Server
from bacpipe.dashboard.shared.results import DataSetResults
from tests.dashboard.conftest import eventually, make_small_field


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    return make_small_field(tmp_path_factory.mktemp("places"), 5380)


@pytest.fixture(scope="module")
def server(data_set: DataSetResults) -> Iterator[Server]:
    running = Server(data_set)
    running.start(show=False)
    yield running
    running.stop()


def on_map(page: Any) -> dict[str, float]:
    """Values of the sites that the browser has drawn."""
    return dict(
        page.evaluate(
            """() => {
                for (const document of Bokeh.documents)
                    for (const model of document._all_models.values())
                        if (model.data?.short) return model.data.name.map(
                            (name, i) => [name, model.data.value[i]])
                return []
            }"""
        )
    )


def test_map_table_and_activity_show_what_the_survey_has(
    visit: Any, data_set: DataSetResults, recwarn: pytest.WarningsRecorder
) -> None:
    loader = data_set.model("tiny").loader
    survey = bacpipe.survey_table(loader, by="site", min_score=0.5)
    quiet = survey[survey["common_name"] == "quiet"].set_index("site")["detections"]
    page = visit("?view=places&species=quiet")
    # Only one of the sites has a position; the other is told.
    eventually(page, lambda: on_map(page), {"north": float(quiet["north"])})
    page.get_by_text("1 site without a position: south").wait_for()

    page.get_by_text("Species by site").locator("visible=true").first.click()
    rows = page.locator(".tabulator-row")
    expected = ["quiet", *(str(quiet[site]) for site in ("north", "south"))]
    eventually(page, lambda: rows.first.inner_text().split(), expected)
    eventually(page, lambda: "places=table" in page.url)

    page.get_by_text("Activity", exact=True).locator("visible=true").first.click()
    with page.expect_download() as download:
        page.get_by_text("Download SVG").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert [str(told.message) for told in recwarn if told.category is BokehUserWarning] == []


def test_a_threshold_that_nothing_reaches_leaves_the_sites(data_set: DataSetResults) -> None:
    found = read_surveyed_sites(data_set.model("tiny"), CLASSIFIER, 1.0)
    assert [site.name for site in found.sites] == ["north", "south"]
    assert [site.position is None for site in found.sites] == [False, True]
    assert found.species == []
