"""What grows with the number of recordings, beside the journal's entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.store import embedding_set
from bacpipe.store.embedding_set import EmbeddingSet
from bacpipe.store.plan import Source, Sources, look_at, look_at_name
from bacpipe.user_input import load_yaml
from tests.conftest import write_recording

STRANGE = ["yes", "1:20.wav", "- a.wav", "a\u2028b.wav", "x\n y.wav", "#c.wav", f"{90 * 'w '}.wav"]


def test_metadata_in_pieces_says_the_same(
    run: Callable[..., bacpipe.Loader], recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(STRANGE):
        stem = Path(name).stem
        write_recording(recordings / "strange" / f"{stem}.wav", 0.5, seed=number)
    loader = run()
    path = loader.get_embedding_dir() / "metadata.yml"
    whole = load_yaml(path.read_text(encoding="utf-8"))
    assert whole == loader.metadata_dict
    assert len(whole["files"]["audio_files"]) == 5 + len(STRANGE)
    monkeypatch.setattr(embedding_set, "_AT_ONCE", 2)
    loader.write_metadata_file()
    assert load_yaml(path.read_text(encoding="utf-8")) == whole


def test_sources_are_what_was_put_in(tmp_path: Path) -> None:
    first, second = Source(tmp_path, "a/x.wav", 5, 7), Source(tmp_path, "b.wav", -1, -1, ((0, 1),))
    sources = Sources(tmp_path)
    sources.extend([first, second])
    assert list(sources) == [first, second] == sources[:]
    assert sources[1].segments == ((0, 1),) and sources[0].segments_hash is None
    assert sources[-2].path == tmp_path / "a" / "x.wav"
    assert sources.size == 5
    with pytest.raises(IndexError):
        sources[2]


def test_a_recording_is_looked_at_by_path_or_by_name(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "x.wav"
    path.parent.mkdir()
    path.write_bytes(b"12345")
    found = look_at(path, tmp_path)
    assert found == look_at_name("sub/x.wav", tmp_path)
    assert (found.name, found.size, found.path) == ("sub/x.wav", 5, path)
    gone = look_at_name("gone.wav", tmp_path)
    assert (gone.size, gone.mtime_ns) == (-1, -1)


def test_recording_tables_needs_no_reading_and_is_read_back(
    run: Callable[..., bacpipe.Loader],
) -> None:
    found = run().embedding_set
    assert found is not None
    known = dict(found.content.tables or {})
    found.record_tables({"other": "value"})
    assert found.content.tables == {**known, "other": "value"}
    assert found.is_current
    assert EmbeddingSet(found.folder).content.tables == found.content.tables
    size = (found.folder / "journal.jsonl").stat().st_size
    found.record_tables({"other": "value"})
    assert (found.folder / "journal.jsonl").stat().st_size == size


def test_states_follow_the_journal(run: Callable[..., bacpipe.Loader]) -> None:
    found = run().embedding_set
    assert found is not None
    states = (found.state, found.predictions_state)
    assert (found.state, found.predictions_state) == states
    name = next(iter(found.content.done))
    entry = found.content.done[name]
    found.content.recordings[name] = replace(entry, windows=entry.windows + 1)
    assert found.state != states[0] and found.predictions_state != states[1]
    found.reload()
    assert (found.state, found.predictions_state) == states


def test_names_and_files_are_the_same_recordings(
    run: Callable[..., bacpipe.Loader], recordings: Path
) -> None:
    loader = run()
    assert loader.recording_names == sorted(loader.entries)
    assert loader.files == [recordings / name for name in loader.recording_names]
    write_recording(recordings / "new.wav", 1.0)
    assert len(loader.recording_names) == 5
    assert recordings / "new.wav" in loader.update_files()
    assert "new.wav" in loader.recording_names


def test_scores_of_recordings_with_and_without_predictions(
    run: Callable[..., bacpipe.Loader],
) -> None:
    scores, classes = run(classifier_threshold=0.7).predictions("dict")
    loader = run(classifier_threshold=0.0)
    dense, all_classes = loader.predictions("dict")
    assert list(scores) == list(dense) == list(loader.entries)
    assert set(classes.values()) <= set(all_classes.values())
    column = {name: i for i, name in all_classes.items()}
    for name, found in scores.items():
        whole = dense[name][:, [column[c] for c in classes.values()]]
        np.testing.assert_array_equal(found, np.where(whole >= np.float32(0.7), whole, 0))
