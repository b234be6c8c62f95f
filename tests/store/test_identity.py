"""Whose results these are: folders of one name, replaced recordings, models that change."""

from __future__ import annotations

import importlib.util
import json
import linecache
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.errors import ResultsNotFoundError
from bacpipe.inference.run_data_set import custom_code
from bacpipe.options import make_options
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]
YEAR_2023 = 1_700_000_000_000_000_000


def card(folder: Path, seed: int, names: tuple[str, ...] = ("20230501_043000.wav",)) -> Path:
    """Recordings that only their content tells from those of another card."""
    for number, name in enumerate(names):
        path = write_recording(folder / name, 3.0, seed=10 * seed + number)
        os.utime(path, ns=(YEAR_2023,) * 2)
    return folder


@pytest.fixture
def embed(tmp_path: Path, tiny_model: type[TinyModel]) -> Run:
    def embed(folder: Path, **settings: object) -> bacpipe.Loader:
        return bacpipe.generate_embeddings(
            **{
                "audio_dir": folder,
                "model_name": "tiny",
                "CustomModel": tiny_model,
                "main_results_dir": tmp_path / "results",
                "device": "cpu",
                "classifier_threshold": 0.0,
                **settings,
            }
        )

    return embed


def level(loader: bacpipe.Loader) -> float:
    return float(loader.embeddings("array").mean())


def test_two_folders_of_one_name_have_results_of_their_own(
    tmp_path: Path, embed: Run, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    folders = [card(tmp_path / year / "A", seed) for seed, year in enumerate(("2023", "2024"))]
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        first, second = map(embed, folders)
    assert "are of another folder" in caplog.text
    assert [x.paths.dataset_path.name for x in (first, second)] == ["A", "2024_A"]
    assert tiny_model.windows_seen == 6 and level(first) != level(second)
    for folder, loader in zip(folders, (first, second), strict=True):
        again = bacpipe.Loader(folder, "tiny", main_results_dir=tmp_path / "results")
        assert level(again) == level(loader)
        assert len(again.predictions("dataframe")) == 3
        assert again.get_embedding_dir().name.endswith(f"___tiny-{loader.paths.dataset_path.name}")
    assert tiny_model.windows_seen == 6
    assert verify_results(tmp_path / "results") == []
    # The name stays, also when the plain one is free again.
    shutil.rmtree(first.paths.dataset_path)
    assert embed(folders[1]).paths.dataset_path == second.paths.dataset_path
    assert tiny_model.windows_seen == 6


def test_a_third_folder_and_a_folder_that_is_called_as_results_are(
    tmp_path: Path, embed: Run
) -> None:
    folders = [card(tmp_path / name, i) for i, name in enumerate(("x/s/A", "y/s/A", "z/s/A"))]
    folders.append(card(tmp_path / "s_A", 9))
    names = [embed(folder).paths.dataset_path.name for folder in folders]
    assert names[:3] == ["A", "s_A", "z_s_A"] and len(set(names)) == 4
    assert [embed(folder).paths.dataset_path.name for folder in folders] == names


def test_results_go_with_recordings_that_are_moved_and_stay_when_a_card_is_changed(
    tmp_path: Path, embed: Run, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    first = embed(card(tmp_path / "card1" / "Data", 1))
    shutil.move(tmp_path / "card1", tmp_path / "disk")
    other = card(tmp_path / "card2" / "Data", 2)
    assert embed(other).paths.dataset_path.name == "card2_Data"  # the first one's are not there
    assert tiny_model.windows_seen == 6
    moved, results = tmp_path / "disk" / "Data", tmp_path / "results"
    assert level(bacpipe.Loader(moved, "tiny", main_results_dir=results)) == level(first)
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        assert embed(moved).paths.dataset_path == first.paths.dataset_path
    assert tiny_model.windows_seen == 6 and "go on with" in caplog.text


def test_recordings_and_results_copied_together_go_on(tmp_path: Path, embed: Run) -> None:
    """To another disk, say, while the first is still there."""
    write_recording(tmp_path / "first" / "Data" / "a.wav", 2.0)
    results = tmp_path / "first" / "results"
    before = embed(tmp_path / "first" / "Data", main_results_dir=results)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    write_recording(tmp_path / "second" / "Data" / "b.wav", 2.0, seed=1)
    after = embed(tmp_path / "second" / "Data", main_results_dir=tmp_path / "second" / "results")
    assert after.paths.dataset_path == tmp_path / "second" / "results" / "Data"
    assert list(after.entries) == ["a.wav", "b.wav"]
    assert list(before.entries) == ["a.wav"]
    again = embed(tmp_path / "first" / "Data", main_results_dir=results)
    assert again.paths.dataset_path == before.paths.dataset_path


def test_a_recording_that_two_cards_share_does_not_make_them_one(
    tmp_path: Path, embed: Run
) -> None:
    first = embed(card(tmp_path / "card1" / "Data", 1, ("test.wav", "a.wav", "b.wav")))
    other = card(tmp_path / "card2" / "Data", 2, ("test.wav", "c.wav"))
    shutil.copy2(tmp_path / "card1" / "Data" / "test.wav", other)
    results = tmp_path / "results"
    for _ in range(2):
        with pytest.raises(ResultsNotFoundError):
            bacpipe.Loader(other, "tiny", main_results_dir=results).embeddings("array")
        shutil.rmtree(tmp_path / "card1", ignore_errors=True)
    assert embed(other).paths.dataset_path.name == "card2_Data"
    assert level(bacpipe.Loader(tmp_path / "card1/Data", "tiny", main_results_dir=results)) == (
        level(first)
    )


def test_results_of_a_folder_are_read_for_a_copy_but_not_written_for_it(
    tmp_path: Path, embed: Run
) -> None:
    first = embed(card(tmp_path / "card" / "Data", 1))
    copy = shutil.copytree(tmp_path / "card" / "Data", tmp_path / "disk" / "Data")
    reader = bacpipe.Loader(copy, "tiny", main_results_dir=tmp_path / "results")
    assert reader.get_embedding_dir() == first.get_embedding_dir()
    write_recording(copy / "new.wav", 1.0)
    assert embed(copy).paths.dataset_path.name == "disk_Data"
    assert list(embed(tmp_path / "card" / "Data").entries) == list(first.entries)


def test_a_replaced_recording_of_the_same_size_and_time_is_noticed(
    tmp_path: Path, embed: Run, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    folder = card(tmp_path / "Data", 1, ("a.wav", "b.wav"))
    before = embed(folder).read_embedding_file("a.wav")
    (folder / "a.wav").rename(tmp_path / "kept.wav")
    write_recording(folder / "a.wav", 3.0, seed=99)
    os.utime(folder / "a.wav", ns=(YEAR_2023,) * 2)
    (finding,) = verify_results(tmp_path / "results")
    assert finding.path == folder / "a.wav" and "another content" in str(finding)
    loader = embed(folder)
    assert tiny_model.windows_seen == 9
    assert "1 recording of the name, size and time" in caplog.text
    assert not np.array_equal(loader.read_embedding_file("a.wav"), before)
    assert verify_results(tmp_path / "results") == []
    os.utime(folder / "b.wav")
    (finding,) = verify_results(tmp_path / "results")
    assert finding.path == folder / "b.wav" and "another size or time" in str(finding)


@pytest.mark.parametrize("size", [0, 1, 1023, 10_240, 10_241, 250_000])
def test_fingerprints_differ_at_both_ends_and_with_the_size(tmp_path: Path, size: int) -> None:
    content = bytearray(np.random.default_rng(0).bytes(size))
    path = tmp_path / "x.wav"
    known = set()
    for change in (None, 0, size // 2 if size <= 10_240 else None, size - 1):
        if change is not None and size:
            content[change] ^= 1
        path.write_bytes(content)
        known.add(content_fingerprint(path))
    path.write_bytes(bytes(content) + b"\0")
    known.add(content_fingerprint(path))
    assert len(known) >= (4 if size > 1 else 2)
    assert content_fingerprint(tmp_path / "none.wav") is None


def own_model(folder: Path, factor: int, comment: str = "") -> type[TinyModel]:
    """A user's own model in a file of its own, as it is after somebody has edited that."""
    file = folder / "mine.py"
    file.write_text(
        f"from tests.conftest import TinyModel\n\nclass Mine(TinyModel):\n    version = None\n\n"
        f"    def __call__(self, x):  # {comment}\n        return {factor} * super().__call__(x)\n"
    )
    spec = importlib.util.spec_from_file_location("mine", file)
    sys.modules["mine"] = module = importlib.util.module_from_spec(spec)
    exec(compile(file.read_text(), str(file), "exec"), vars(module))  # no cache of bytecode
    linecache.clearcache()
    return module.Mine


def test_an_edited_model_starts_a_set_of_its_own(
    tmp_path: Path, embed: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mine", None)
    folder = card(tmp_path / "Data", 1)
    double = embed(folder, CustomModel=own_model(tmp_path, 2))
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        commented = embed(folder, CustomModel=own_model(tmp_path, 2, comment="twice as loud"))
        assert commented.get_embedding_dir() == double.get_embedding_dir()
        other = embed(folder, CustomModel=own_model(tmp_path, 3))
    assert caplog.text.count("starting a new set") == 1 and "code=" in caplog.text
    assert level(other) == pytest.approx(1.5 * level(double))
    again = embed(folder, CustomModel=own_model(tmp_path, 2))
    assert again.get_embedding_dir() == double.get_embedding_dir()
    (tmp_path / "mine.py").unlink()  # what is typed into an interpreter has no source
    linecache.clearcache()
    typed = [custom_code(sys.modules["mine"].Mine()), custom_code(own_model(tmp_path, 4)())]
    assert len(set(typed)) == 2


def test_a_version_and_the_classes_are_part_of_a_model(tmp_path: Path, embed: Run) -> None:
    folder = card(tmp_path / "Data", 1)
    sets = [embed(folder, CustomModel=TinyModel).get_embedding_dir()]
    for change in ({"version": "2"}, {"classes": ["loud", "silent"]}):
        model = TinyModel()
        for key, value in change.items():
            setattr(model, key, value)
        sets.append(embed(folder, CustomModel=model).get_embedding_dir())
    assert len(set(sets)) == 3
    assert embed(folder, CustomModel=TinyModel).get_embedding_dir() == sets[0]


def test_predictions_of_several_hops_stand_beside_each_other(
    tmp_path: Path, embed: Run, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    folder, results = card(tmp_path / "Data", 1), tmp_path / "results"
    plain = embed(folder)
    table = (plain.paths.preds_path / "tiny_classifier_annotations.csv").read_bytes()
    overlapping = embed(folder, hop=0.5)
    seen = tiny_model.windows_seen
    found = bacpipe.Loader(folder, "tiny", main_results_dir=results)
    assert found.get_embedding_dir() == overlapping.get_embedding_dir()
    assert "of 2 sets of embeddings of tiny this is the newest (hop=0.5" in caplog.text
    assert len(found.predictions("dataframe")) == len(found.embeddings("array")) == 5
    for loader in (plain, bacpipe.Loader(folder, "tiny", main_results_dir=results, hop=None)):
        assert loader.get_embedding_dir() == plain.get_embedding_dir()
        assert len(loader.predictions("dataframe")) == len(loader.embeddings("array")) == 3
        assert (loader.paths.preds_path / "tiny_classifier_annotations.csv").read_bytes() == table
    assert verify_results(results) == []
    shown = DataSetResults(folder, ["tiny"], make_options(main_results_dir=results)).model("tiny")
    same = bacpipe.Loader(folder, "tiny", **shown.settings)
    assert shown.settings["hop"] == 0.5 and "classifier_threshold" not in shown.settings
    assert same.get_embedding_dir() == overlapping.get_embedding_dir()
    write_recording(folder / "new.wav", 1.0)
    again = embed(folder)
    assert tiny_model.windows_seen == seen + 1
    assert again.paths.preds_path.name == "predictions"
    assert len(again.predictions("dataframe")) == 4 and len(found.predictions("dataframe")) == 5
    assert [str(finding) for finding in verify_results(results)] == []


def test_a_later_command_leaves_predictions_as_they_are(
    tmp_path: Path, embed: Run, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    folder = card(tmp_path / "Data", 1)
    loader = embed(folder, classifier_threshold=0.1, save_raven_tables=True)
    files = [p for p in loader.paths.preds_path.rglob("*") if p.suffix in {".csv", ".txt"}]
    assert len(files) == 3
    before = {path: path.read_bytes() for path in files}
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        settings = {"device": "cpu", "main_results_dir": tmp_path / "results"}
        bacpipe.run_pipeline_for_single_model(
            "tiny", folder, "pca", CustomModel=tiny_model, **settings
        )
        strict = embed(folder, classifier_threshold=0.7)
    assert caplog.text.count("predictions stay as they are stored") == 2
    assert {path: path.read_bytes() for path in files} == before
    stored = bacpipe.Loader(folder, "tiny", main_results_dir=tmp_path / "results")
    assert len(bacpipe.detections_table(stored)) == 6 > len(bacpipe.detections_table(strict)) > 0
    assert bacpipe.detections_table(strict)["score"].min() >= 0.7
    # New recordings get what the others have, and a lower threshold is computed.
    write_recording(folder / "new.wav", 1.0)
    settings = {"audio_dir": folder, "model_name": "tiny", "CustomModel": tiny_model, **settings}
    loader = bacpipe.generate_embeddings(**settings)
    assert {entry.predictions.threshold for entry in loader.entries.values()} == {0.1}
    seen = tiny_model.windows_seen
    loader = embed(folder, classifier_threshold=0.05)
    assert {entry.predictions.threshold for entry in loader.entries.values()} == {0.05}
    assert tiny_model.windows_seen == seen


def test_an_interrupted_change_of_the_threshold_is_completed(tmp_path: Path, embed: Run) -> None:
    folder = card(tmp_path / "Data", 1, ("a.wav", "b.wav"))
    loader = embed(folder, classifier_threshold=0.4)
    journal = loader.get_embedding_dir() / "journal.jsonl"
    lines = journal.read_text().splitlines()
    some = next(json.loads(line) for line in lines if '"a.wav"' in line)
    some["predictions"]["threshold"] = 0.2  # as far as the run had come that was killed
    journal.write_text("\n".join([*lines, json.dumps(some)]) + "\n")
    loader = bacpipe.generate_embeddings(
        audio_dir=folder, model_name="tiny", CustomModel=TinyModel, device="cpu",
        main_results_dir=tmp_path / "results",
    )  # fmt: skip
    assert {entry.predictions.threshold for entry in loader.entries.values()} == {0.2}


def test_exports_beside_the_predictions_are_written_anew_with_their_settings(
    tmp_path: Path, embed: Run, caplog: pytest.LogCaptureFixture
) -> None:
    folder = card(tmp_path / "Data", 1, ("a.wav", "b.wav"))
    loader = embed(folder, classifier_threshold=0.3)
    exported = bacpipe.export_raven_tables(loader, event_gap=0, classifier_threshold=0.6)
    labels = bacpipe.export_audacity_labels(loader)
    (tmp_path / "own").mkdir()
    own = bacpipe.export_audacity_labels(loader, tmp_path / "own")
    kept = own[0].read_bytes()
    bacpipe.export_audacity_labels(loader, tmp_path / "own", classifier_threshold=0.01)
    assert "scores below 0.3 were not stored" in caplog.text and own[0].read_bytes() == kept
    caplog.clear()
    everything = bacpipe.detections_table(loader)
    assert "were not stored" not in caplog.text
    assert len(bacpipe.detections_table(loader, classifier_threshold=0.01)) == len(everything)
    assert "scores below 0.3 were not stored" in caplog.text
    (folder / "b.wav").unlink()
    loader = embed(folder, classifier_threshold=0.0)
    assert len(labels[0].read_text().splitlines()) == 6  # both classes of three windows
    about = json.loads((exported[0].parent / "provenance.json").read_text())
    assert about["threshold"] == 0.6 and about["event_gap"] == 0
    for old in (exported[1], labels[1]):
        assert not old.exists() and old.with_name(f"{old.name}.stale").is_file()
    assert own[0].read_bytes() == kept and own[1].exists()
    assert [str(finding) for finding in verify_results(tmp_path / "results")] == []


def test_options_remember_what_was_asked_for(restored_settings: None) -> None:
    assert make_options().asked == frozenset()
    assert make_options(padding="wrap").asked == {"padding"}
    bacpipe.settings.hop = 0.7
    assert make_options(device="cpu").asked == {"device", "hop"}


@pytest.mark.parametrize("told", [True, False], ids=["told", "recognised"])
def test_a_renamed_folder_of_recordings_costs_nothing(
    tmp_path: Path, embed: Run, tiny_model: type[TinyModel], told: bool
) -> None:
    """Even if copying has given the recordings new times."""
    names = ("20230501_043000.wav", "20230502_043000.wav", "20230503_043000.wav")
    before = embed(card(tmp_path / "ForestNorth", 1, names))
    shutil.copytree(
        tmp_path / "ForestNorth", tmp_path / "disk" / "FN01", copy_function=shutil.copyfile
    )
    shutil.rmtree(tmp_path / "ForestNorth")
    now = tmp_path / "disk" / "FN01"
    words: dict[str, object] = {"moved_from": tmp_path / "ForestNorth"} if told else {}
    assert embed(now, **words).paths.dataset_path == before.paths.dataset_path
    for _ in range(2):  # the option may stay in config.yaml, or not
        assert embed(now, **words).paths.dataset_path == before.paths.dataset_path
        assert level(bacpipe.Loader(now, "tiny", main_results_dir=tmp_path / "results"))
        words = {}
    assert tiny_model.windows_seen == 9 and verify_results(tmp_path / "results") == []
    # What changes later is noticed as ever.
    write_recording(now / names[0], 3.0, seed=5)
    assert [finding.path.name for finding in verify_results(tmp_path / "results")] == [names[0]]
    embed(now)
    assert tiny_model.windows_seen == 12


def test_a_renamed_recording_costs_nothing(
    tmp_path: Path, embed: Run, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    folder = card(tmp_path / "card", 1, ("a.wav", "b.wav", "c.wav"))
    before = embed(folder)
    embeddings, found = before.embeddings(), bacpipe.detections_table(before)
    (folder / "site 1").mkdir()
    (folder / "a.wav").rename(folder / "site 1" / "20240501_043000.wav")
    (folder / "b.wav").rename(folder / "a.wav")  # the name of another one of before
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        after = embed(folder)
    assert tiny_model.windows_seen == 12  # a.wav's own results had to make room
    assert "results of 1 recording are kept under new names" in caplog.text
    assert set(after.entries) == {"a.wav", "c.wav", "site 1/20240501_043000.wav"}
    moved = after.embeddings()["site 1/20240501_043000_tiny.npy"]
    np.testing.assert_array_equal(moved, embeddings["a_tiny.npy"])
    table = bacpipe.detections_table(after)
    columns = ["start", "common_name", "score"]
    old = found.loc[found["recording"] == "a.wav", columns].reset_index(drop=True)
    new = table.loc[table["recording"] == "site 1/20240501_043000.wav", columns]
    assert new.reset_index(drop=True).equals(old) and len(old)
    assert verify_results(tmp_path / "results") == []
    embed(folder)
    assert tiny_model.windows_seen == 12
    # Of another time it may be another one, and damaged results are computed again.
    (folder / "c.wav").rename(folder / "d.wav")
    os.utime(folder / "d.wav", ns=(YEAR_2023 + 2,) * 2)
    embed(folder)
    assert tiny_model.windows_seen == 15
    stored = after.embed_dir / "d_tiny.npy"
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    (folder / "d.wav").rename(folder / "e.wav")
    embed(folder)
    assert tiny_model.windows_seen == 18


def test_a_folder_that_was_not_moved_is_a_sentence(tmp_path: Path, embed: Run) -> None:
    first = card(tmp_path / "first", 1)
    embed(first)
    second = card(tmp_path / "second", 2, ("other.wav",))
    for old, sentence in (
        (first, "is still there"),
        (tmp_path / "typo", f"no results of this folder in .*results, but of {first}"),
    ):
        with pytest.raises(bacpipe.errors.SettingsError, match=sentence):
            embed(second, moved_from=old)
    shutil.move(first, tmp_path / "third")
    with pytest.raises(bacpipe.errors.SettingsError, match="none of its recordings, such as 2023"):
        embed(second, moved_from=first)
    # A card with recordings of the same names is another one.
    assert embed(card(tmp_path / "fourth", 3)).paths.dataset_path.name == "fourth"
    assert embed(tmp_path / "third").paths.dataset_path.name == "first"
