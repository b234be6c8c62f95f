"""Detections of species that cannot be there: marked or hidden when read, never lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bacpipe
from bacpipe.errors import SettingsError, SitesError
from bacpipe.models.families.birdnet_range import RANGE_FILES
from bacpipe.models.weights.checkpoints import missing_files
from bacpipe.places.clock import say_once
from bacpipe.store.range_filter import RangeFilter
from tests.conftest import SHARED, needs_shared_audio, write_recording

pytestmark = pytest.mark.skipif(
    bool(missing_files(RANGE_FILES, Path(bacpipe.settings.model_base_path))),
    reason="the range model is not installed",
)

SPECIES = {
    "Eurasian Blackbird": "Turdus merula",
    "Clark's Nutcracker": "Nucifraga columbiana",
    "Kirtland's Warbler": "Setophaga kirtlandii",
    "Dog": "Dog",
}
HERE = {"latitude": 52.52, "longitude": 13.40}


class Ornithologist(bacpipe.ModelBaseClass):
    """Hears every species in every window of a second."""

    def __init__(self, **kwargs):
        super().__init__(sr=8000, segment_length=8000, **kwargs)
        self.classes = list(SPECIES)
        self.scientific_names = list(SPECIES.values())

    def preprocess(self, audio):
        return audio[:, :4]

    def __call__(self, x):
        return x

    def classifier_predictions(self, embeddings):
        return torch.linspace(0.9, 0.6, len(SPECIES)).expand(len(embeddings), -1)


@pytest.fixture(autouse=True)
def _forget():
    say_once.cache_clear()


@pytest.fixture
def folder(tmp_path):
    for name in ("pond/20250520_040000.wav", "pond/20250105_090000.wav", "hide/b.wav"):
        write_recording(tmp_path / "field" / name, 2.0)
    return tmp_path / "field"


@pytest.fixture
def made(folder, tmp_path):
    def make(**settings):
        return bacpipe.generate_embeddings(
            model_name="own", CustomModel=Ornithologist, audio_dir=folder,
            main_results_dir=tmp_path / "results", device="cpu", **settings,
        )  # fmt: skip

    return make


def read(loader, **settings):
    return bacpipe.Loader(
        loader.audio_dir, "own", main_results_dir=loader.paths.main_results_dir, **settings
    )


def classes(loader):
    return set(loader.predictions("dataframe").columns[3:])


def test_nothing_changes_without_a_place(made, caplog):
    loader = made()
    assert classes(loader) == set(SPECIES)
    assert not (loader.paths.dataset_path / "places").exists()
    (item, *_) = loader.detections()
    assert np.isnan(loader.range_filter().probabilities(item)).all()
    with caplog.at_level("WARNING"):
        assert classes(read(loader, range_filter="hide")) == set(SPECIES)
    assert "range_filter=hide leaves out nothing" in caplog.text


def test_detections_are_marked_or_hidden_but_never_lost(made, caplog):
    loader = made(**HERE)
    assert classes(loader) == set(SPECIES)
    items = {item.recording: item for item in loader.detections()}
    found = loader.range_filter().probabilities(items["pond/20250520_040000.wav"])
    by_class = dict(zip(items["pond/20250520_040000.wav"].label, found, strict=True))
    week = bacpipe.species_at(52.52, 13.40, week=19, threshold=0).set_index("common_name")
    for name in ("Eurasian Blackbird", "Clark's Nutcracker"):
        assert abs(by_class[name] - week.loc[name, "probability"]) < 1e-6
    assert by_class["Clark's Nutcracker"] < 0.03 < by_class["Eurasian Blackbird"]
    assert np.isnan(by_class["Kirtland's Warbler"]) and np.isnan(by_class["Dog"])

    with caplog.at_level("INFO"):
        hidden = read(loader, range_filter="hide", **HERE)
        assert classes(hidden) == set(SPECIES) - {"Clark's Nutcracker"}
    assert "6 detections of 1 species not expected there left out (Clark's Nutcracker)" in (
        caplog.text
    )
    assert "2 classes without a range stay (Dog, Kirtland's Warbler)" in caplog.text
    assert classes(read(loader, range_filter="hide", range_threshold=0.0, **HERE)) == set(SPECIES)
    table = pd.read_parquet(loader.paths.preds_path / "own_detections.parquet")
    assert set(table["common_name"]) == set(SPECIES)
    shown = loader.get_annotations_parquet(range_filter="hide")  # the run's place is remembered
    assert "Clark's Nutcracker" not in shown.columns


def test_a_hiding_run_stores_everything(made):
    loader = made(range_filter="hide", save_raven_tables=True, **HERE)
    raven = "".join(path.read_text() for path in loader.paths.raven_path.rglob("*.txt"))
    assert "Blackbird" in raven and "Nutcracker" not in raven
    annotations = pd.read_csv(loader.paths.preds_path / "own_classifier_annotations.csv")
    assert "Clark's Nutcracker" in set(annotations["label:default_classifier"])
    assert classes(read(loader)) == set(SPECIES)


def test_each_of_several_sites_at_one_place_has_its_rows(made, folder):
    shutil.copytree(folder / "pond", folder / "marsh")
    loader = made(**HERE)
    table = pd.read_parquet(loader.paths.species_range_path)
    ranges = {site: rows.drop(columns="site") for site, rows in table.groupby("site")}
    assert {"pond", "marsh"} <= ranges.keys()
    pd.testing.assert_frame_equal(
        ranges["pond"].reset_index(drop=True), ranges["marsh"].reset_index(drop=True)
    )


def test_tables_of_places(made, folder):
    head = "site,latitude,longitude,time_zone,habitat\n"
    (folder / "sites.csv").write_text(f"{head}pond,52.52,13.4,UTC,reed\n", encoding="utf-8")
    loader = made()
    places = loader.paths.dataset_path / "places"
    copy = pd.read_csv(places / "sites.csv")
    assert copy[["site", "habitat"]].to_numpy().tolist() == [["pond", "reed"]]
    table = pd.read_parquet(places / "species_range.parquet")
    assert {"site", "week", "class", "probability"} <= set(table.columns)
    assert set(table["week"]) == {1, 19} and set(table["site"]) == {"pond"}
    assert table["probability"].min() >= 0.01 and len(table) < 1000
    row = table[(table["week"] == 19) & (table["class"] == "Eurasian Blackbird")]
    assert row["probability"].item() > 0.9
    # A corrected table is taken over by the next run, which computes nothing else.
    (folder / "sites.csv").write_text(f"{head}pond,-33.9,151.2,UTC,reed\n", encoding="utf-8")
    made()
    table = pd.read_parquet(places / "species_range.parquet")
    assert set(table["latitude"]) == {-33.9}
    # Results whose recordings are elsewhere keep their places.
    shutil.rmtree(folder)
    item = next(item for item in read(loader).detections() if "pond" in item.recording)
    assert not np.isnan(read(loader).range_filter().probabilities(item)).all()


def test_a_species_of_several_classes_keeps_them_all(made, monkeypatch):
    monkeypatch.setitem(SPECIES, "Clark's Nutcracker", "Turdus merula")
    loader = made()
    expected = {"Eurasian Blackbird", "Clark's Nutcracker"}
    assert classes(read(loader, species_list=["turdus merula"])) == expected
    assert classes(read(loader, species_list=["Clark's Nutcracker"])) == {"Clark's Nutcracker"}


def test_own_lists_of_species(made, tmp_path, caplog):
    loader = made()
    names = ["turdus MERULA", "Dog", "Clarks Nutcracker", "Pica pica"]
    with caplog.at_level("WARNING"):
        assert classes(read(loader, species_list=names)) == {"Eurasian Blackbird", "Dog"}
    assert "2 names of 4 are no class of this model: 'Clarks Nutcracker' (did you mean" in (
        caplog.text
    )
    file = tmp_path / "mine.txt"
    file.write_text("\ufeff# mine\nTurdus merula_Eurasian Blackbird\n\n", encoding="utf-8")
    assert classes(read(loader, species_list=str(file))) == {"Eurasian Blackbird"}
    with pytest.raises(SettingsError, match=r"gone\.txt'?: there is no such file"):
        classes(read(loader, species_list="gone.txt"))
    file.write_text("\n")
    with pytest.raises(SettingsError, match="holds no names"):
        classes(read(loader, species_list=[str(file)]))
    with pytest.raises(SettingsError, match="so nothing would be left"):
        classes(read(loader, species_list=["Elvis"]))


def test_bad_tables_and_lists_stop_a_run_before_it_begins(made, folder, tmp_path):
    (folder / "sites.csv").write_text("site,latitude,longitude\npond,91,1\n", encoding="utf-8")
    with pytest.raises(SitesError, match="no place on Earth"):
        made()
    (folder / "sites.csv").unlink()
    for settings, told in (
        ({"species_list": "gone.txt"}, "there is no such file"),
        ({"latitude": 3}, "only half of a position; give longitude"),
        ({"latitude": float("nan"), "longitude": 3}, "expected a number from -90 to 90"),
        ({"range_threshold": 2}, "expected a number from 0 to 1"),
        ({"range_filter": "remove"}, "expected one of mark, hide, off"),
    ):
        with pytest.raises(SettingsError, match=told):
            made(**settings)
    assert not (tmp_path / "results").exists()
    assert bacpipe.options.Options(range_filter=False).range_filter == "off"  # YAML's off


def test_without_the_range_model_everything_stays(made, folder, monkeypatch, caplog):
    from bacpipe.errors import CheckpointNotFoundError
    from bacpipe.store import range_filter

    def missing(folder):
        raise CheckpointNotFoundError("it is not here")

    def marks(loader):
        table = pd.read_csv(loader.paths.preds_path / "own_detections.csv")
        return table["range_probability"].notna().any()

    made(range_filter="hide", **HERE)
    with monkeypatch.context() as patched, caplog.at_level("WARNING"):
        patched.setattr(range_filter, "range_model", missing)
        patched.setattr(range_filter, "range_model_is_here", lambda folder: False)
        # New recordings: tables are written anew, and an old one would not know their places.
        write_recording(folder / "pond/20250601_040000.wav", 2.0)
        loader = made(range_filter="hide", **HERE)
        assert classes(loader) == set(SPECIES) and not marks(loader)
        assert not loader.paths.species_range_path.exists()
        made(range_filter="hide", **HERE)
    assert "no species is marked: it is not here" in caplog.text
    # It has come: the next run marks what is there, and computes nothing else.
    monkeypatch.setattr(Ornithologist, "__call__", missing)
    caplog.clear()
    with caplog.at_level("INFO"):
        loader = made(range_filter="hide", **HERE)
    assert marks(loader) and "Clark's Nutcracker" not in classes(loader)
    weeks = pd.read_parquet(loader.paths.species_range_path)["week"]
    assert set(weeks.dropna()) == {1, 19, 21}
    before = loader.paths.species_range_path.stat().st_mtime_ns
    made(range_filter="hide", **HERE)
    assert loader.paths.species_range_path.stat().st_mtime_ns == before


def test_labels_and_heat_maps_of_the_sun(made):
    from bacpipe.labels.activity import class_activity

    loader = made(**HERE)
    labels = bacpipe.create_default_labels(
        loader.audio_dir, "own", main_results_dir=loader.paths.main_results_dir
    )
    hours, files = labels["hours_after_sunrise"], labels["audio_file_name"]
    assert np.isnan(hours[files == "hide/b.wav"]).all()
    assert abs(hours[files == "pond/20250520_040000.wav"][0] + 1.05) < 0.1  # sunrise at 05:03
    dawn = labels["hours_after_civil_dawn"] - hours  # 40 minutes before sunrise
    assert np.isnan(dawn[files == "hide/b.wav"]).all() and 0.6 < np.nanmin(dawn) < 0.75
    moon = dict(zip(files, labels["moon_illumination"], strict=True))
    assert np.isnan(moon["hide/b.wav"])
    assert abs(moon["pond/20250520_040000.wav"] - 0.5) < 0.1  # last quarter
    assert abs(moon["pond/20250105_090000.wav"] - 0.35) < 0.15  # first quarter was on the 6th
    activity = class_activity(loader, "sunrise_day")
    counts = activity.counts["Dog"]
    assert counts.sum() == 4 and activity.grid.rows[0] == "-12"
    row, column = np.argwhere(counts)[0]
    assert activity.grid.rows[row] == "-2"
    assert activity.grid.describe(row, column) == "2025-05-20, -2 h from sunrise"
    activity = class_activity(loader, "sunset_day")
    row, column = np.argwhere(activity.counts["Dog"])[0]
    assert activity.grid.describe(row, column) == "2025-01-05, -8 h from sunset"  # at 16:08


def test_off_gives_no_probabilities(made):
    off, marked = (
        bacpipe.detections_table(made(range_filter=setting, **HERE)) for setting in ("off", "mark")
    )
    assert len(off) == len(marked) and marked["range_probability"].notna().any()
    assert off["range_probability"].isna().all()


@needs_shared_audio
def test_european_recordings_hold_no_unmarked_americans(tmp_path):
    loader = bacpipe.generate_embeddings(
        model_name="birdnet", audio_dir=SHARED / "audio" / "birds", hop=0.25,
        main_results_dir=tmp_path, device="cpu", **HERE,
    )  # fmt: skip
    known: RangeFilter = loader.range_filter()
    unmarked, every = set(), set()
    for item in loader.detections():
        marked = known.probabilities(item) < 0.03
        every.update(item.label)
        unmarked.update(item.label[~marked & (item.score > 0.5)])
    americans = {"Slate-colored Grosbeak", "Clark's Nutcracker", "Brown Tinamou"}
    assert americans < every and not americans & unmarked
    assert {"Eurasian Blackbird", "Eurasian Wren"} <= unmarked
    assert "Common Cuckoo" in every  # marked: the names of its recordings say January
