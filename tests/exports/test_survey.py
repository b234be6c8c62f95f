"""Survey tables and histories: every number again by a slow way, from stored windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.errors import SettingsError
from tests.conftest import TinyModel, write_recording

HOP = 0.25


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> bacpipe.Loader:
    """Two sites; windows of a second every quarter of one; a recording over midnight."""
    folder = tmp_path_factory.mktemp("survey")
    names = ["A/20240501_235957.wav", "A/20240503_120000.wav", "B/20240501_100000.wav", "B/x.wav"]
    for seed, name in enumerate(names):
        write_recording(folder / "card" / name, 6.0, seed=seed)
    (folder / "card" / "sites.csv").write_text(
        "site,latitude,longitude,time_zone,habitat\n"
        "A,52.5,13.4,Europe/Berlin,forest\nB,51.5,-0.1,UTC,meadow\n"
    )
    return bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=TinyModel,
        audio_dir=folder / "card",
        main_results_dir=str(folder / "results"),
        classifier_threshold=0.1,
        hop=HOP,
        device="cpu",
    )


def test_no_sound_and_no_second_count_twice(survey: bacpipe.Loader) -> None:
    least = 0.55
    table = bacpipe.survey_table(survey, by=("site", "date"), min_score=least)
    same = bacpipe.survey_table(survey, by="site,date", min_score=least)
    pd.testing.assert_frame_equal(table, same)
    rows = bacpipe.detections_table(survey, classifier_threshold=least)
    begins = {"A/20240501_235957.wav": "2024-05-01 23:59:57", "A/20240503_120000.wav":
              "2024-05-03 12:00", "B/20240501_100000.wav": "2024-05-01 10:00"}  # fmt: skip
    sounds: dict[tuple[str, str, str], int] = defaultdict(int)
    for (name, label), group in rows.groupby(["recording", "common_name"]):
        reach = -np.inf
        for start, end in sorted(zip(group["start"], group["end"], strict=True)):
            if start > reach + 1e-6:
                day = ""
                if name in begins:
                    day = f"{pd.Timestamp(begins[name]) + pd.Timedelta(seconds=start):%Y-%m-%d}"
                sounds[name[0], day, label] += 1
            reach = max(reach, end)
    keys = list(zip(table["site"], table["date"], table["common_name"], strict=True))
    assert dict(zip(keys, table["detections"], strict=True)) == {k: sounds.get(k, 0) for k in keys}
    assert set(sounds) <= set(keys) and (table["detections"] == 0).any()
    assert table["windows"].sum() == len(rows) > table["detections"].sum() > 0
    # Every moment once: 6 s of each recording, 3 of them before midnight.
    effort = table.drop_duplicates(["site", "date"]).set_index(["site", "date"])
    hours = {("A", "2024-05-01"): 3, ("A", "2024-05-02"): 3, ("A", "2024-05-03"): 6,
             ("B", "2024-05-01"): 6, ("B", ""): 6}  # fmt: skip
    found = (effort["hours_listened"] * 3600).round(6).to_dict()
    assert found == pytest.approx(hours)
    windows = sum(entry.windows for entry in survey.entries.values())
    assert effort["windows_listened"].sum() == windows


@pytest.mark.parametrize("by", ["hour", ["habitat", "week"], "recording", ["month", "year"]])
def test_groups_add_up(survey: bacpipe.Loader, by: str | list[str]) -> None:
    table = bacpipe.survey_table(survey, by=by, min_score=0.3)
    whole = bacpipe.survey_table(survey, by="site", min_score=0.3)
    for column in ("windows", "detections"):
        assert table[column].sum() == whole[column].sum()
    keys = [by] if isinstance(by, str) else by
    hours = [
        t.drop_duplicates(k)["hours_listened"].sum() for t, k in ((table, keys), (whole, "site"))
    ]
    assert hours[0] == pytest.approx(hours[1]) == pytest.approx(24 / 3600)
    assert not table.duplicated([*keys, "common_name"]).any()


def test_rows_are_added_up_alike_in_many_pieces(
    survey: bacpipe.Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [("site", "date"), "recording", ["habitat", "hour"]]
    at_once = [bacpipe.survey_table(survey, by=by, min_score=0.3) for by in keys]
    monkeypatch.setattr("bacpipe.exports.survey._WAITING", 1)
    monkeypatch.setattr("bacpipe.store.tables._BLOCK", 1)
    for by, table in zip(keys, at_once, strict=True):
        pd.testing.assert_frame_equal(bacpipe.survey_table(survey, by=by, min_score=0.3), table)


def test_history_knows_silence_from_absence(survey: bacpipe.Loader) -> None:
    history = bacpipe.detection_history(survey, "LOUD", min_score=0.3)
    assert list(history.index) == ["A", "B"]
    assert [f"{day:%d}" for day in history.columns] == ["01", "02", "03"]
    rows = bacpipe.detections_table(survey, classifier_threshold=0.3)
    loud = rows[(rows["common_name"] == "loud") & rows["recording"].str.contains("2024")]
    # The sites have a zone each, so the column is in UTC.
    assert str(rows["datetime"].dt.tz) == "UTC"
    heard = {(n[0], n[8:10]) for n in loud["recording"]} - {("A", "01")}
    late = loud[loud["recording"].str.startswith("A/20240501")]["start"]
    heard |= {("A", "01")} if (late < 3).any() else set()
    heard |= {("A", "02")} if (late >= 3).any() else set()
    listened = {("A", "01"), ("A", "02"), ("A", "03"), ("B", "01")}
    for site in history.index:
        for day in history.columns:
            key, value = (site, f"{day:%d}"), history.loc[site, day]
            assert value is pd.NA if key not in listened else value == (key in heard), key
    assert bacpipe.detection_history(survey, "loud", "2D", 0.3).shape == (2, 2)
    strict = bacpipe.detection_history(survey, "loud", min_hours=4 / 3600)
    assert strict.notna().sum().sum() == 2  # what was listened to for six seconds


def test_years_without_recordings_are_no_occasions(tmp_path: Path) -> None:
    days = ["19990301", "20240501", "20240504"]
    for site, day in (("A", days[0]), ("A", days[1]), ("B", days[1]), ("B", days[2])):
        write_recording(tmp_path / "card" / site / f"{day}_235959.wav", 2.0, seed=1)
    loader = bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, audio_dir=tmp_path / "card",
        main_results_dir=str(tmp_path / "results"), classifier_threshold=0.0, device="cpu",
    )  # fmt: skip
    history = bacpipe.detection_history(loader, "loud", min_score=0.0)
    # Each recording reaches into the next day.
    expected = ["1999-03-01", "1999-03-02", "2024-05-01", "2024-05-02", "2024-05-04", "2024-05-05"]
    assert [f"{day:%Y-%m-%d}" for day in history.columns] == expected
    assert history.notna().to_numpy().tolist() == [
        [True] * 4 + [False] * 2,
        [False] * 2 + [True] * 4,
    ]
    assert history.attrs["hours_listened"][0] == pytest.approx([1 / 3600] * 4 + [0] * 2, abs=1e-6)
    assert (history.loc["B"].dropna() == 1).all()


def test_nothing_above_the_score_is_zeros(survey: bacpipe.Loader) -> None:
    history = bacpipe.detection_history(survey, "loud", min_score=1.0)
    assert set(history.stack().dropna()) == {0}
    table = bacpipe.survey_table(survey, min_score=1.0)
    effort = bacpipe.survey_table(survey).drop_duplicates(["site", "date"])
    columns = ["site", "date", "windows_listened", "hours_listened"]
    pd.testing.assert_frame_equal(table[columns], effort[columns].reset_index(drop=True))
    assert set(table["common_name"]) == set(table["scientific_name"]) == {""}
    assert not table[["detections", "windows"]].any().any() and table["best_score"].isna().all()
    asked = bacpipe.survey_table(survey, by="site", min_score=1.0, species_list=["loud"])
    assert asked["hours_listened"].sum() == pytest.approx(24 / 3600)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda loader: bacpipe.survey_table(loader, by="species"), "by=.*site, recording, date"),
        (lambda loader: bacpipe.survey_table(loader, by=["site", "site"]), "each once"),
        (lambda loader: bacpipe.detection_history(loader, "lout"), "did you mean loud"),
        (lambda loader: bacpipe.survey_table(loader, by=None), "by=.*site, recording, date"),
        (lambda loader: bacpipe.detection_history(loader, "loud", min_hours=-1), "hours from 0"),
        (lambda loader: bacpipe.detection_history(loader, " "), "species is empty"),
        (lambda loader: bacpipe.detection_history(loader, None), "species=None is no name"),
        (lambda loader: bacpipe.detection_history(loader, "loud", "often"), "length of time"),
        (lambda loader: bacpipe.detection_history(loader, "loud", "1s"), "at least a minute"),
        (lambda loader: bacpipe.survey_table(loader, hops=1), "hops"),
    ],
)
def test_mistakes_are_told(
    survey: bacpipe.Loader, call: Callable[[bacpipe.Loader], object], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        call(survey)


def test_occupancy_is_recovered_from_exported_histories(tmp_path: Path) -> None:
    occupancy = pytest.importorskip("benchmarks.occupancy", reason="the benchmarks are not here")
    result = occupancy.run(60, tmp_path, seed=1)
    assert result["held"] >= 0.9
    assert result["mean psi"] == pytest.approx(occupancy.PSI, abs=0.03)
    # Or the thresholds would not have reached the histories.
    assert result["mean psi with false positives"] > occupancy.PSI + 0.1
