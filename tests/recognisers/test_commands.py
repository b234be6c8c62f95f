"""The loop on the command line: label, train, suggest, label again, apply to new recordings."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

import bacpipe
import bacpipe.store.layout
from bacpipe.__main__ import main
from tests.recognisers.conftest import Spectra, rows_of, write_sounds


@pytest.fixture
def typed(sounds, tmp_path, monkeypatch, capsys):
    """Run a command on a copy of the data set without labels."""
    folder, truth, results = sounds
    own = tmp_path / "results"
    shutil.copytree(results, own, ignore=shutil.ignore_patterns("labels", "recognisers"))
    monkeypatch.chdir(tmp_path)

    def run(*words, audio_dir=folder):
        code = main([*words, f"audio_dir={audio_dir}", f"main_results_dir={own}"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run, truth, own


def test_from_labels_to_a_recogniser_and_back(typed, tmp_path):
    run, truth, own = typed
    assert run("label") == (0, "There are no labels yet.\n")
    code, text = run("train", "pond_life", "models=spectra")
    assert code == 1 and "no labels of people yet" in text
    rows_of(truth, range(5)).to_csv(tmp_path / "heard.csv", index=False)
    assert run("label", "heard.csv", "--annotator", "Ana") == (0, "40 labels written.\n")
    words = ("label", "east/a.wav", "7", "8", "hum", "no", "--annotator", "Ben")
    assert run(*words) == (0, "1 label written.\n")
    code, text = run("label")
    assert code == 0 and "Ana" in text and "Ben" in text
    code, text = run("train", "pond_life", "models=spectra")
    assert code == 0 and "2 classes on spectra" in text and "average_precision" in text
    code, text = run("recognisers")
    assert code == 0 and text.startswith("pond_life  on spectra: hiss (")
    (tmp_path / "settings.yaml").write_text("recogniser: null\n")  # as in the one that is shipped
    code, text = run("suggest", "pond_life", "-n", "6", "--csv", "next.csv")
    assert code == 0 and "6 windows in next.csv" in text
    table = pd.read_csv("next.csv")
    truth_of = {
        (r.recording, r.start, r.label): r.value for r in rows_of(truth, range(40)).itertuples()
    }
    keys = zip(table["recording"], table["start"], table["label"], strict=True)
    table["value"] = [truth_of[key] for key in keys]
    table.to_csv("next.csv", index=False)
    assert run("label", "next.csv") == (0, "6 labels written.\n")
    held = bacpipe.people_labels(typed_folder(own), main_results_dir=own)
    assert len(held) == 47 and set(held["chosen_by"]) == {"", "mixed"}
    code, text = run("label", "--export", "out", "--format", "raven")
    assert code == 0 and len(text.splitlines()) == 4


def typed_folder(results):
    return bacpipe.store.data_set_folder.recorded_folder(results / "pond")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "models=spectra"), "train takes the name"),
        (("train", "a", "models=[birdnet, beats]"), "train takes one model"),
        (("suggest",), "suggest takes the name"),
        (("suggest", "nothing"), "no such recogniser"),
        (("suggest", "nothing", "--strategy", "best"), "expected one of mixed"),
        (("label", "a", "b"), "label takes one table"),
        (("label", "nothing.csv"), "nothing.csv"),
        (("recogniser=nothing",), "no such recogniser"),
        (("search", "recogniser=nothing"), "no such recogniser"),
        (("search", "a.wav", "recogniser=b"), "search takes one clip"),
        (("export", "csv", "recogniser=nothing"), "no such recogniser"),
    ],
)
def test_mistakes_are_sentences(typed, words, sentence):
    code, text = typed[0](*words)
    assert code in {1, 2} and sentence in text and len(text.strip().splitlines()) == 1


def test_a_run_applies_a_recogniser_to_new_recordings(sounds, recogniser, tmp_path):
    folder = tmp_path / "lake"
    truth = write_sounds(folder, ["c.wav"], seed=5)
    loaders = bacpipe.play(
        audio_dir=folder, recogniser="pond_life", CustomModel=Spectra, device="cpu",
        main_results_dir=sounds[2],
    )  # fmt: skip
    assert list(loaders) == ["spectra", "pond_life"]
    table = bacpipe.detections_table(loaders["pond_life"])
    hits = {(row.start, row.common_name) for row in table.itertuples()}
    expected = {(float(i), "hum") for i in range(40) if truth["c.wav"][i, 0]}
    assert len(expected & hits) > 0.7 * len(expected)
