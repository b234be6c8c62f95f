"""Words that people type where a path may stand, and that lead nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bacpipe
from tests.conftest import TinyModel, write_recording

LONG = "the song of a bird by the river " * 12  # longer than a name may be
DEEP = "/".join(["d" * 200] * 30)  # longer than a path may be
WORDS = {"long": LONG, "deep": DEEP, "null": "a\0b", "file as folder": "day.wav/x"}


class Field:
    """A small data set with labels and a recogniser."""

    def __init__(self, folder: Path) -> None:
        self.audio_dir = folder / "field"
        self.where = {"main_results_dir": folder / "results", "device": "cpu"}
        for number in range(4):
            write_recording(self.audio_dir / f"{number}.wav", 3.0, seed=number)
        self.loader = bacpipe.generate_embeddings(
            model_name="tiny", CustomModel=TinyModel, audio_dir=self.audio_dir, **self.where
        )
        windows = [(f"{number}.wav", second) for number in range(4) for second in range(3)]
        rows = [
            {"recording": name, "start": second, "end": second + 1, "label": "frog"}
            | {"value": "yes" if second else "no"}
            for name, second in windows
        ]
        bacpipe.label_windows(self.audio_dir, rows, "Zoë", **self.where)
        self.recogniser = bacpipe.train_recogniser(
            self.audio_dir, "tiny", name="frogs", **self.where
        )

    def read(self, **settings: object) -> object:
        loader = bacpipe.Loader(self.audio_dir, "tiny", **self.where, **settings)
        return bacpipe.detections_table(loader)


Call = Callable[[Field, str], object]
CALLS: dict[str, Call] = {
    "search": lambda f, word: bacpipe.search(word, f.audio_dir, "tiny", **f.where),
    "search a window": lambda f, word: bacpipe.search((word, 0.0), f.audio_dir, "tiny", **f.where),
    "train": lambda f, word: bacpipe.train_recogniser(f.audio_dir, "tiny", name=word, **f.where),
    "labels": lambda f, word: bacpipe.train_recogniser(
        f.audio_dir, "tiny", name="g", labels=word, **f.where
    ),
    "suggest": lambda f, word: bacpipe.suggest(f.audio_dir, word, **f.where),
    "calibrate": lambda f, word: bacpipe.calibrate(f.audio_dir, word, **f.where),
    "load": lambda f, word: bacpipe.Recogniser.load(word),
    "label": lambda f, word: bacpipe.label_windows(f.audio_dir, word, "Zoë", **f.where),
    "import": lambda f, word: bacpipe.import_annotations(word, f.audio_dir),
    "export": lambda f, word: bacpipe.export(f.loader, "csv", f"0.wav/{word}"),
    "people": lambda f, word: bacpipe.export_people_labels(f.audio_dir, "", **f.where),
    "sites": lambda f, word: f.read(sites=word),
    "species": lambda f, word: f.read(species_list=f"{word}.txt"),
    "recording": lambda f, word: bacpipe.AudioHandler(TinyModel(), f.audio_dir).load_and_resample(
        word
    ),
    "weights": lambda f, word: bacpipe.ensure_models_exist(f"0.wav/{word}", ["mix2"]),
    "results": lambda f, word: bacpipe.get_model_names([], f.audio_dir, word, "embeddings", True),
}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    before = Path.cwd()
    field = Field(tmp_path_factory.mktemp("typed"))
    os.chdir(field.audio_dir)
    yield field
    os.chdir(before)


@pytest.mark.parametrize("word", WORDS.values(), ids=list(WORDS))
@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_word_that_is_no_path_is_told(field: Field, call: Call, word: str) -> None:
    with pytest.raises(bacpipe.BacpipeError):
        call(field, word)


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_path_where_nobody_may_look_is_told(
    field: Field, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, lstat = os.stat, os.lstat

    def refusing(ask: Any) -> Callable[..., os.stat_result]:
        def refuse(path: Any, *rest: object, **more: object) -> os.stat_result:
            if "locked" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            result: os.stat_result = ask(path, *rest, **more)
            return result

        return refuse

    monkeypatch.setattr(os, "stat", refusing(stat))
    monkeypatch.setattr(os, "lstat", refusing(lstat))
    with pytest.raises(bacpipe.BacpipeError):
        call(field, "/locked/in/x.csv")


def test_when_every_window_is_labelled_nothing_is_suggested(field: Field) -> None:
    found = bacpipe.suggest(field.audio_dir, field.recogniser, **field.where)
    assert found.empty
    assert {"recording", "start", "end", "label", "value", "score"} <= {*found.columns}
