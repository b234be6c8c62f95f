import struct

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import bacpipe
from bacpipe.errors import SettingsError


@pytest.fixture
def paths(audio_dir, results, loader):
    return bacpipe.make_set_paths_func(audio_dir, str(results))("tiny")


def test_labels_of_every_window(paths, loader):
    labels = bacpipe.create_default_labels(paths=paths)
    assert set(labels) == set(bacpipe.settings.default_label_keys)
    n = len(loader.embeddings("array"))
    assert {len(values) for values in labels.values()} == {n}
    quiet, south = 7, 8
    assert labels["audio_file_name"][south] == "south/20240302_183000.wav"
    assert labels["parent_directory"][[quiet, south]].tolist() == ["garden", "south"]
    assert labels["time_of_day"][south] == "18:30"
    assert labels["day_of_year"][south] == 62  # leap year
    assert labels["week_of_year"][south] == 9
    seconds = labels["continuous_timestamp"][south:] - np.datetime64("2024-03-02T18:30:00")
    assert (seconds / np.timedelta64(1, "s")).tolist() == [0, 5, 10]


def test_names_without_a_time_give_none(paths):
    labels = bacpipe.create_default_labels(paths=paths)
    assert labels["time_of_day"][7] is None
    assert np.isnan(labels["day_of_year"][7]) and np.isnan(labels["week_of_year"][7])
    assert np.isnat(labels["continuous_timestamp"][7])


def test_best_class_of_every_window(paths, loader):
    labels = bacpipe.create_default_labels(paths=paths)["default_classifier"]
    scores, classes = loader.predictions("array")
    expected = [classes[row.argmax()] if row.any() else None for row in scores]
    assert labels.tolist() == expected
    assert any(name is not None for name in expected)


def test_stored_labels_are_taken_while_nothing_changes(paths, loader, audio_dir, results):
    first = bacpipe.create_default_labels(paths=paths)
    stored = loader.paths.labels_path / "default_labels.parquet"
    before = stored.stat().st_mtime_ns
    again = bacpipe.get_default_labels("tiny", audio_dir=audio_dir, main_results_dir=str(results))
    assert stored.stat().st_mtime_ns == before
    for key, values in first.items():
        assert values.dtype == again[key].dtype
        assert pd.Series(values).equals(pd.Series(again[key]))
    bacpipe.get_default_labels("tiny", paths=paths, default_label_keys=["time_of_day"])
    assert stored.stat().st_mtime_ns > before


def test_both_classes(paths):
    older = bacpipe.DefaultLabels(paths, "tiny", ["time_of_day", "parent_directory"])
    newer = bacpipe.MetadataLabelMaker(
        paths, model="tiny", metadata_label_keys=["time_of_day", "parent_directory"]
    )
    assert older.default_label_dict == {}
    older.generate()
    assert newer.generate() is newer.metadata_label_dict
    assert list(older.default_label_dict) == ["time_of_day", "parent_directory"]
    for key, values in older.default_label_dict.items():
        assert values.tolist() == newer.metadata_label_dict[key].tolist()


def test_data_frame(paths, loader):
    table = bacpipe.metadata_labels(paths=paths, default_label_keys=["day_of_year"])
    assert list(table.columns) == ["audiofilename", "start", "end", "day_of_year"]
    assert len(table) == len(loader.embeddings("array"))
    as_dict = bacpipe.metadata_labels(paths=paths, return_type="dict")
    assert set(as_dict) == set(bacpipe.settings.default_label_keys)


def test_mistakes(paths):
    with pytest.raises(SettingsError, match="'season'"):
        bacpipe.DefaultLabels(paths, "tiny", ["season"])
    with pytest.raises(SettingsError, match="return_type"):
        bacpipe.metadata_labels(paths=paths, return_type="array")
    with pytest.raises(SettingsError, match="model is missing"):
        bacpipe.create_default_labels(audio_dir="somewhere")


def test_model_without_classifier_and_embeddings(audio_dir, tmp_path):
    labels = bacpipe.create_default_labels(audio_dir, "audiomae", main_results_dir=str(tmp_path))
    assert set(labels["default_classifier"]) == {None}
    assert len(labels["time_of_day"]) == 7


def test_several_time_zones_keep_order_and_distance(tmp_path, caplog):
    audio = tmp_path / "autumn"
    audio.mkdir()
    for name, zone in (("a", "02:30:00+02:00"), ("b", "02:30:00+01:00"), ("c", "02:45:00+02:00")):
        text = f"GUANO|Version: 1.0\nTimestamp: 2023-10-29T{zone}\n".encode()
        sf.write(audio / f"{name}.wav", np.zeros(80_000), 8000)
        with (audio / f"{name}.wav").open("ab") as file:
            file.write(struct.pack("<4sI", b"guan", len(text)) + text + bytes(len(text) % 2))
    sf.write(audio / "d_20231030_060000.wav", np.zeros(80_000), 8000)
    sf.write(audio / "e.wav", np.zeros(80_000), 8000)

    def starts():
        labels = bacpipe.create_default_labels(audio, "audiomae", main_results_dir=str(tmp_path))
        names = labels["audio_file_name"].tolist()
        return [
            str(labels["continuous_timestamp"][names.index(n)])[:16] for n in sorted(set(names))
        ]

    expected = [
        "2023-10-29T02:30",
        "2023-10-29T03:30",
        "2023-10-29T02:45",
        "2023-10-30T06:00",
        "NaT",
    ]
    assert starts() == expected
    assert "several time zones (UTC+02:00: 2, UTC+01:00: 1)" in caplog.text
    assert "1 do not; these count by their clocks" in caplog.text
    assert "3 from their metadata, 1 from their names, 1 tell no time, such as e.wav" in caplog.text
    caplog.clear()
    assert starts() == expected
    assert "time zones" not in caplog.text  # said once
