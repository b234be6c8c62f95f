from __future__ import annotations

import json
import re
import shlex
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.__main__ import main
from bacpipe.errors import ResultsLockedError, ResultsNotFoundError
from bacpipe.store.arrays import scan_npy
from bacpipe.store.embedding_set import EmbeddingSet
from bacpipe.store.entries import Entries
from bacpipe.store.file_checks import why_unreadable
from bacpipe.store.files import TEMPORARY, EmbeddingFile
from bacpipe.store.journal import RunJournal
from bacpipe.store.lock import exclusive
from bacpipe.store.verification import repair_results, verify_results
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]


@pytest.fixture
def results(run: Run, tmp_path: Path) -> Path:
    """A tree with embeddings, predictions of every window, Raven tables and a map."""
    from bacpipe.reduction.reduce_data_set import reduce_data_set

    loader = run(classifier_threshold=0.0, save_raven_tables=True)
    reduce_data_set(loader, "pca", loader.options)
    return tmp_path / "results"


def again(run: Run, model: type[TinyModel]) -> int:
    """Windows that a second run computes."""
    before = model.windows_seen
    run(classifier_threshold=0.0, save_raven_tables=True)
    return model.windows_seen - before


def one(results: Path, pattern: str) -> Path:
    (path,) = results.rglob(pattern)
    return path


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_good_tree_is_clean_and_is_not_touched(
    results: Path, capsys: pytest.CaptureFixture
) -> None:
    before = snapshot(results)
    assert verify_results(results) == []
    assert main(["verify", str(results)]) == 0
    assert main(["verify", f"main_results_dir={results}"]) == 0
    audio = json.loads((results / "field" / "dataset.json").read_text())["audio_dir"]
    assert main(["verify", f"audio_dir={audio}", f"main_results_dir={results}"]) == 0
    assert "everything is as the journals say" in capsys.readouterr().out
    assert main(["verify", f"audio_dir={audio}", "hopp=1"]) == 2
    assert "hopp" in capsys.readouterr().err
    assert main(["verify", str(results / "field"), "--repair"]) == 0
    assert snapshot(results) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def not_finite(path: Path) -> None:
    array = np.load(path)
    array[2, 3] = np.nan
    np.save(path, array)


def another_shape(path: Path) -> None:
    np.save(path, np.load(path).reshape(-1, 5))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: flip(path, -5), "has changed since it was written"),
        (lambda path: flip(path, 3), "cannot be read"),
        (cut, "bytes, the journal says"),
        (not_finite, "has changed since"),
        (another_shape, r"shape \(8, 5\), the journal says \(4, 10\)"),
        (Path.unlink, "is missing"),
    ],
)
def test_damaged_embeddings_are_named_and_exactly_these_computed_again(
    results: Path,
    run: Run,
    tiny_model: type[TinyModel],
    damage: Callable[[Path], None],
    sentence: str,
) -> None:
    path = one(results, "north/a_tiny.npy")
    good = path.read_bytes()
    damage(path)
    findings = verify_results(results)
    assert [finding.recording for finding in findings] == ["north/a.wav"]
    assert re.search(sentence, str(findings[0]))
    assert "compute the embeddings of north/a.wav again" in str(findings[0])
    left = path.read_bytes() if path.exists() else None
    assert repair_results(findings) == 1
    assert (path.read_bytes() if path.exists() else None) == left
    assert any("marked to be computed again" in str(f) for f in verify_results(results))
    assert again(run, tiny_model) == 4
    assert path.read_bytes() == good
    assert verify_results(results) == []


def test_values_that_are_not_numbers_are_found_without_a_hash(
    results: Path, run: Run, tiny_model: type[TinyModel]
) -> None:
    """Embeddings of older versions have no hash, and may hold anything."""
    folder = one(results, "journal.jsonl").parent
    (folder / "journal.jsonl").unlink()
    metadata = folder / "metadata.yml"
    text = metadata.read_text()
    metadata.write_text(text[: text.index("bacpipe:")])
    path = folder / "north" / "b_tiny.npy"
    array = np.load(path)
    array[1, 0] = np.inf
    np.save(path, array)
    shutil.rmtree(results / "field" / "evaluations")
    shutil.rmtree(results / "field" / "dim_reduced_embeddings")
    (finding,) = verify_results(results)
    assert "not numbers, first in window 1" in str(finding)
    assert repair_results([finding]) == 1
    assert path.with_name("b_tiny.npy.damaged").is_file()
    before = tiny_model.windows_seen
    run(run_pretrained_classifier=False)
    assert tiny_model.windows_seen - before == 2
    assert verify_results(results) == []


@pytest.mark.parametrize("damage", [lambda path: flip(path, 30), cut, Path.unlink])
def test_damaged_predictions_are_computed_again_from_stored_embeddings(
    results: Path, run: Run, tiny_model: type[TinyModel], damage: Callable[[Path], None]
) -> None:
    path = one(results, "south/a_tiny.parquet")
    good = path.read_bytes()
    damage(path)
    (finding,) = verify_results(results)
    assert str(finding).endswith("compute the predictions for south/a.wav again.")
    assert repair_results([finding]) == 1
    assert again(run, tiny_model) == 0
    assert path.read_bytes() == good
    assert verify_results(results) == []


@pytest.mark.parametrize(
    "name",
    ["tiny_detections.parquet", "tiny_classifier_annotations.csv", "predictions/provenance.json"],
)
def test_damaged_tables_are_written_again(
    results: Path, run: Run, tiny_model: type[TinyModel], name: str
) -> None:
    path = one(results, name)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    (finding,) = verify_results(results)
    assert finding.path == path
    assert repair_results([finding]) == 1
    assert again(run, tiny_model) == 0
    assert path.read_bytes() == good


def test_strangers_temporaries_and_metadata_of_a_killed_run_are_named(results: Path) -> None:
    folder = one(results, "journal.jsonl").parent
    (folder / "north" / "old_tiny.npy").write_bytes(b"?")
    temporary = folder / f".x.npy.1234{TEMPORARY}"
    temporary.write_bytes(b"half")
    (folder / "metadata.yml").unlink()
    messages = "\n".join(map(str, verify_results(results)))
    assert "old_tiny.npy: no line of the journal names it" in messages
    assert f"{temporary.name}: was left by a write that broke off" in messages
    assert "metadata.yml: is missing" in messages
    assert len(messages.splitlines()) == 3


def test_maps_are_checked_and_laid_aside(results: Path, run: Run) -> None:
    from bacpipe.reduction.reduce_data_set import reduce_data_set

    table = one(results, "field_tiny.parquet")
    flip(table, -3)
    (finding,) = verify_results(results)
    assert "run the dimensionality reduction again" in str(finding)
    before = set(table.parent.iterdir())
    assert repair_results([finding]) == 1
    assert len(set(table.parent.iterdir()) & before) == 2  # the metadata have another name
    loader = run(classifier_threshold=0.0)
    folder = reduce_data_set(loader, "pca", loader.options)
    assert folder != table.parent
    assert [f.path for f in verify_results(results)] == [table.parent]


def test_a_stale_map_and_stale_tables_are_named(results: Path, run: Run, recordings: Path) -> None:
    write_recording(recordings / "new.wav", 2.0, seed=9)
    run(run_pretrained_classifier=False)
    messages = [str(finding) for finding in verify_results(results)]
    assert any("its embeddings have changed since" in message for message in messages)
    assert any("1 recording with embeddings and no predictions" in m for m in messages)


def test_results_of_evaluations_are_read(results: Path) -> None:
    folder = results / "field" / "evaluations" / "tiny"
    for name, content in {
        "probing/probe_results_linear.json": b'{"overall": ',
        "labels/ground_truth_species.csv": b"start,end\n1,2\n3",
        "plots/embeddings.png": b"\x89PNG\r\n\x1a\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert len(verify_results(results)) == 3


def test_labels_recognisers_and_calibrations_are_checked_and_kept(
    results: Path, run: Run, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = run(classifier_threshold=0.0, save_raven_tables=True)
    recording = next(iter(loader.entries))
    starts, ends = loader.window_times(recording)
    label = next(iter(loader.detections())).label[0]
    rows = [
        {"recording": recording, "start": starts[i], "end": ends[i], "label": label,
         "value": ("yes", "no")[i]}
        for i in range(2)
    ]  # fmt: skip
    where = {"audio_dir": recordings, "main_results_dir": results}
    bacpipe.label_windows(rows=rows, **where)
    recogniser = bacpipe.train_recogniser(model="tiny", name="sounds", **where)
    recogniser.results(loader)
    bacpipe.calibrate(model_or_recogniser="tiny", classifier_threshold=0.0, **where)
    assert verify_results(results) == []
    numbers, words = one(results, "recogniser.safetensors"), one(results, "recogniser.json")
    labels, meaning = one(results, "people_labels.jsonl"), one(results, "calibration/tiny.json")
    table = one(results, "sounds_detections.csv")

    def cut_line(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b'"no"', b'"n', 1))

    for path, damage, said in [
        (numbers, cut, "train it again"),
        (numbers, lambda path: path.write_bytes(without_numbers(path)), "train it again"),
        (words, cut, "writes these words anew"),
        (words, lambda path: path.write_text('{"name": "others"}'), "numbers beside it"),
        (words, Path.unlink, "is missing"),
        (labels, cut, "(line 3); it stays in the file"),
        (labels, cut_line, "(line 3); it stays in the file"),
        (labels, lambda path: path.write_text('{"format": 99}\n'), "newer bacpipe"),
        (meaning, cut, "run bacpipe.calibrate again"),
        (meaning, lambda path: path.write_text('{"format": 1}'), "run bacpipe.calibrate again"),
        (table, cut, "apply the recogniser again"),
    ]:
        sound = path.read_bytes()
        damage(path)
        before = snapshot(results)
        (finding,) = verify_results(results)
        assert str(path) in str(finding) and said in str(finding)
        assert repair_results([finding]) == 0 and snapshot(results) == before
        path.write_bytes(sound)
    assert main(["verify", str(results)]) == 0
    numbers.unlink()
    assert "is missing" in str(verify_results(results)[0])


def without_numbers(path: Path) -> bytes:
    """A recogniser of which the numbers are none."""
    data = path.read_bytes()
    return data[:-8] + np.array([np.nan, np.nan], "<f4").tobytes()


def test_the_command_marks_and_says_what_to_do(
    results: Path, capsys: pytest.CaptureFixture
) -> None:
    flip(one(results, "top_tiny.npy"), -1)
    results = results.rename(results.with_name("my res"))
    assert main(["verify", str(results)]) == 1
    said = capsys.readouterr().out
    assert "To mark 1 of them" in said
    command = shlex.split(said.splitlines()[-1].partition("again: ")[2])
    assert command[-3:] == ["verify", str(results), "--repair"]
    assert main(command[-3:]) == 1
    assert "Marked 1 of 1 finding; run the pipeline again" in capsys.readouterr().out


def test_a_tree_that_is_being_written_is_not_repaired(results: Path) -> None:
    flip(one(results, "top_tiny.npy"), -1)
    findings = verify_results(results)
    with (
        exclusive(results / "field" / "embeddings", "tiny"),
        pytest.raises(ResultsLockedError),
    ):
        repair_results(findings)


def test_a_journal_of_a_newer_version_is_a_finding(results: Path) -> None:
    journal = one(results, "journal.jsonl")
    lines = journal.read_text().splitlines()
    header = {**json.loads(lines[0]), "format": 2}
    journal.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    assert any("newer bacpipe" in str(finding) for finding in verify_results(results))


@pytest.mark.parametrize("what", ["absent", "empty"])
def test_what_holds_no_results_is_an_error(tmp_path: Path, what: str) -> None:
    if what == "empty":
        (tmp_path / what).mkdir()
    with pytest.raises(ResultsNotFoundError, match="expected"):
        verify_results(tmp_path / what)
    assert main(["verify", str(tmp_path / what)]) == 1


def test_memory_does_not_grow_with_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "long.npy"
    file = EmbeddingFile(path)
    block = np.arange(2**20, dtype=np.float32).reshape(-1, 64)
    for _ in range(12):
        file.append(block)
    written = file.commit()
    tracemalloc.start()
    scan = scan_npy(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scan == ((12 * len(block), 64), written.sha256, None)
    assert path.stat().st_size == 48 * 2**20 + 128
    assert peak < 20 * 2**20


def test_many_recordings_are_checked_from_one_journal(results: Path) -> None:
    folder = one(results, "journal.jsonl").parent
    entry = EmbeddingSet(folder).content.done["top.wav"]
    data = (folder / "top_tiny.npy").read_bytes()
    journal = RunJournal(folder, Entries())
    for number in range(500):
        stored = replace(entry.embeddings, path=f"many/{number}_tiny.npy")
        (folder / "many").mkdir(exist_ok=True)
        (folder / stored.path).write_bytes(data)
        journal.append(replace(entry, file=f"many/{number}.wav", embeddings=stored))
    journal.close()
    flip(folder / "many" / "234_tiny.npy", -1)
    damaged = [finding.recording for finding in verify_results(results) if finding.recording]
    assert damaged == ["many/234.wav"]


def test_every_format_is_told_when_it_is_cut(results: Path) -> None:
    """Whatever ends too early does not pass for a file."""
    paths = [
        *(
            one(results, name)
            for name in ("top_tiny.npy", "field_tiny.parquet", "predictions/provenance.json")
        ),
        one(results, "reducer.safetensors"),
        one(results, "tiny_classifier_annotations.csv"),
    ]
    for path in paths:
        assert why_unreadable(path) is None
        data = path.read_bytes()
        for size in sorted({0, 1, 7, len(data) // 2, len(data) - 3}):
            path.write_bytes(data[:size])
            assert why_unreadable(path) is not None, (path.name, size)
        path.write_bytes(data)
