"""Shards: what belongs to which, who may work on them, and what comes out."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import bacpipe
import bacpipe.store.embedding_set
from bacpipe.__main__ import main
from bacpipe.dashboard.server import open_data_set
from bacpipe.errors import (
    NoRecordingsError,
    ResultsError,
    ResultsLockedError,
    ResultsNotFoundError,
    SettingsError,
)
from bacpipe.options import Options, make_options
from bacpipe.scaling import agreement
from bacpipe.scaling.manifest import Folder, Manifest, Planner
from bacpipe.scaling.merging import merge
from bacpipe.scaling.planning import plan
from bacpipe.scaling.shards import ShardReport, ShardWorker, shard_status
from bacpipe.store.claims import Claims
from bacpipe.store.layout import Stems
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording
from tests.faults.kill_runs import StillClock

SETTINGS = {"device": "cpu", "classifier_threshold": 0.5, "hours_per_shard": 6 / 3600}
MakeOptions = Callable[..., Options]


@pytest.fixture
def options(recordings: Path, tmp_path: Path) -> MakeOptions:
    """Options of a call on the five recordings."""

    def make(**changes: object) -> Options:
        base = {"audio_dir": recordings, "main_results_dir": tmp_path / "sharded"}
        return make_options(**{**base, "models": ["tiny"], **SETTINGS, **changes})

    return make


@pytest.fixture
def custom(tiny_model: type[TinyModel]) -> dict[str, object]:
    return {"tiny": tiny_model}


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file of the results of a data set, made comparable."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith("shards/") or path.suffix == ".lock":
            continue
        if name == "dataset.json":
            continue  # where the results are
        data = path.read_bytes()
        name = name.replace(name.split("___")[0], "embeddings/time") if "___" in name else name
        if path.name == "journal.jsonl":
            lines = [json.loads(line) for line in data.splitlines()]
            last = {line["file"]: line for line in lines if "file" in line}
            data = json.dumps([lines[0], sorted(last.items()), lines[-1]]).encode()
        elif path.suffix in {".yml", ".txt", ".parquet", ".json"}:
            data = data.replace(str(folder.parent).encode(), b"")
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def test_a_manifest_parts_by_folder_and_length_and_is_stable(
    recordings: Path, tmp_path: Path
) -> None:
    settings = {"main_results_dir": tmp_path / "results"}
    for i in range(6):
        write_recording(recordings / "north" / f"n{i}.wav", 3.0, seed=i)
    first = bacpipe.plan_shards(recordings, "birdnet", hours_per_shard=8 / 3600, **settings)
    assert list(first.columns) == ["shard", "recording", "site", "seconds", "bytes"]
    assert sorted(first["recording"]) == bacpipe.Loader(recordings).recording_names
    assert first["shard"].is_monotonic_increasing
    assert first["seconds"].sum() == pytest.approx(31.5, rel=0.2)
    by_shard = first.groupby("shard")["seconds"].sum()
    assert (by_shard <= 8.5).all()
    manifest = tmp_path / "results" / "field" / "shards" / "manifest.parquet"
    assert pq.read_table(manifest).num_rows == len(first)
    pd.testing.assert_frame_equal(
        bacpipe.plan_shards(recordings, ["birdnet"], hours_per_shard=8 / 3600, **settings), first
    )
    # Others come and go: those that stay keep their shards.
    (recordings / "north" / "n2.wav").unlink()
    new = write_recording(recordings / "north" / "a.flac", 2.0, seed=9)
    second = bacpipe.plan_shards(recordings, "birdnet", hours_per_shard=99, **settings)
    stayed = first[first["recording"] != "north/n2.wav"].reset_index(drop=True)
    added = second[second["recording"] == new.relative_to(recordings).as_posix()]
    pd.testing.assert_frame_equal(second.drop(added.index), stayed)
    assert added["shard"].to_list() == [first["shard"].max() + 1]


def test_sites_of_the_table_stay_together_where_a_shard_has_room(tmp_path: Path) -> None:
    field = tmp_path / "field"
    numbers = {"1": 2, "A/x": 2, "A/y": 2, "B": 1, "C/a": 2, "C/b": 3, "C/c": 2}
    for folder, number in numbers.items():
        for i in range(number):
            write_recording(field / folder / f"r{i}.wav", 2.0)

    def shards_of(results: str) -> dict[str, set[tuple[int, str]]]:
        table = bacpipe.plan_shards(
            field, "birdnet", hours_per_shard=10 / 3600, main_results_dir=tmp_path / results
        )
        folders = table["recording"].astype(str).str.rpartition("/")[0]
        return {
            folder: set(zip(rows["shard"], rows["site"], strict=True))
            for folder, rows in table.groupby(folders)
        }

    # Without a table, a folder is a site; A/y has begun a shard, rather than be parted.
    assert shards_of("folders") == {
        "1": {(1, "1")}, "A/x": {(1, "A/x")}, "A/y": {(2, "A/y")}, "B": {(2, "B")},
        "C/a": {(3, "C/a")}, "C/b": {(3, "C/b")}, "C/c": {(4, "C/c")},
    }  # fmt: skip
    (field / "sites.csv").write_text("site,latitude,longitude\nA,52.5,13.4\nC,52.6,13.5\n")
    # A is together, which has no room behind 1; C is longer than a shard, its folders are not.
    assert shards_of("sites") == {
        "1": {(1, "1")}, "A/x": {(2, "A")}, "A/y": {(2, "A")}, "B": {(3, "B")},
        "C/a": {(3, "C")}, "C/b": {(4, "C")}, "C/c": {(4, "C")},
    }  # fmt: skip
    status = shard_status(make_options(audio_dir=field, main_results_dir=tmp_path / "sites"))
    assert status["site"].to_list() == ["1", "A", "B ... C", "C"]
    assert status["hours"].to_list() == pytest.approx([4 / 3600, 8 / 3600, 6 / 3600, 10 / 3600])


def test_stems_and_parts_are_those_of_all_recordings(tmp_path: Path) -> None:
    names = [
        "A/x.wav", "A/x.flac", "A/y.wav", "a/x.WAV", "a/y.wav", "a/z.wav", "B/ä.wav", "B/Ä.wav",
        "B/u.wav", "B/u.wav.flac", f"C/{'l' * 230}.wav", "C/" + "é" * 120 + ".wav", "D/1.wav",
    ]  # fmt: skip
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(name.split("/")[0], []).append(name)
    found = Planner(
        Manifest(tmp_path / "manifest.parquet", tmp_path, ["birdnet"], {}),
        make_options(hours_per_shard=3 / 3600),
        length_of=lambda _: 1.0,
    ).write(Folder(sorted(some), np.full(len(some), 100)) for some in by_folder.values())
    whole = Stems(sorted(names))
    seen = []
    for number in found.shards:
        part = found.part(number)
        stems = Stems.given(part.unusual_stems)
        assert {name: stems.of(name) for name in part.names} == {
            name: whole.of(name) for name in part.names
        }
        seen += part.names
    assert sorted(seen) == sorted(names)
    assert len(found.shards) > 3


def test_shards_make_the_tree_of_one_run(
    options: MakeOptions,
    custom: dict[str, object],
    run: Callable[..., bacpipe.Loader],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Tables name their set by the minute.
    monkeypatch.setattr(bacpipe.store.embedding_set, "datetime", StillClock)
    undisturbed = run()
    (undisturbed.audio_dir / "south" / "broken.wav").write_bytes(b"RIFF and no more")
    undisturbed = run()
    manifest = plan(options(), custom=custom)
    assert len(manifest.shards) >= 3
    tiny = custom["tiny"]
    worker = ShardWorker(options(), custom=custom)
    first, *_ = worker.work_on_all(most=1)
    assert first.reports["tiny"].done
    # Readers see what there is, at once.
    results = {"main_results_dir": options().main_results_dir, "model_name": "tiny"}
    loader = bacpipe.Loader(undisturbed.audio_dir, **results)
    assert len(loader.entries) == first.reports["tiny"].done
    with pytest.raises(ResultsError, match=r"shards of \d are not done \(2"):
        merge(options())
    others = [report.number for report in ShardWorker(options(), custom=custom).work_on_all()]
    assert others == manifest.shards[1:]
    table = shard_status(options())
    assert table["state"].to_list() == ["done"] * len(manifest.shards)
    assert (table["done"] + table["failed"] == table["recordings"]).all()
    assert table["failed"].sum() == 1
    seen = tiny.windows_seen  # type: ignore[attr-defined]
    again = worker.work(first.number)  # all of it is done
    assert again.reports["tiny"].kept == first.reports["tiny"].done
    assert tiny.windows_seen == seen  # type: ignore[attr-defined]
    loader = bacpipe.Loader(undisturbed.audio_dir, **results)
    np.testing.assert_array_equal(loader.embeddings("array"), undisturbed.embeddings("array"))
    assert len(list(loader.embed_dir.glob("journal*.jsonl"))) > 1  # type: ignore[union-attr]
    # Nobody has to merge before looking.
    (unmerged,) = verify_results(loader.paths.dataset_path)
    assert unmerged.what == "tables" and "bacpipe shards merge" in unmerged.message
    found, wanted = (bacpipe.detections_table(item) for item in (loader, undisturbed))
    pd.testing.assert_frame_equal(found, wanted)
    where = {"audio_dir": loader.audio_dir, "main_results_dir": options().main_results_dir}
    shown = open_data_set(None, **where).model("tiny")
    assert len(shown) == len(undisturbed.embeddings("array"))
    merged = merge(options())["tiny"]
    assert [path.name for path in merged.get_embedding_dir().glob("journal*")] == ["journal.jsonl"]
    assert verify_results(merged.paths.dataset_path) == []
    pd.testing.assert_frame_equal(
        shard_status(options())[["shard", "done", "failed"]], table[["shard", "done", "failed"]]
    )
    ours, theirs = (contents(item.paths.dataset_path) for item in (merged, undisturbed))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    # An ordinary run goes on from there.
    assert len(run(main_results_dir=options().main_results_dir).entries) == 5
    assert tiny.windows_seen == seen  # type: ignore[attr-defined]


def test_two_workers_exclude_each_other_and_a_plan_excludes_all(
    options: MakeOptions, custom: dict[str, object], run: Callable[..., bacpipe.Loader]
) -> None:
    plan(options(), custom=custom)
    worker = ShardWorker(options(), custom=custom)
    with worker.claims.holding("shard-00001"):
        with pytest.raises(ResultsLockedError, match=r"shard-00001 is held by process \d+ of"):
            ShardWorker(options(), custom=custom).work(1)
        assert shard_status(options())["state"].to_list()[0] == "working"
        for forbidden in (
            lambda: plan(options(), custom=custom),
            lambda: merge(options(), incomplete=True),
            lambda: run(main_results_dir=options().main_results_dir),
        ):
            with pytest.raises(ResultsLockedError, match="shard-00001 is being worked on"):
                forbidden()
        assert 1 not in [report.number for report in _next(options(), custom, most=1)]
    for what in ("plan", "run-tiny"):
        with (
            worker.claims.holding(what),
            pytest.raises(ResultsLockedError, match="wait until that is done"),
        ):
            worker.work(1)
    assert worker.work(1).reports["tiny"].done


def _next(options: Options, custom: dict[str, object], most: int) -> list[ShardReport]:
    return list(ShardWorker(options, custom=custom).work_on_all(most))


def test_the_shard_of_a_worker_that_is_gone_is_taken_over(
    options: MakeOptions, custom: dict[str, object]
) -> None:
    plan(options(), custom=custom)
    done = ShardWorker(options(), custom=custom)
    folder = done.paths.claims_path
    # Of another computer, so that nothing but its silence tells.
    gone = {"state": "held", "machine": "node7", "process": 1, "who": "node7", "beat": 3}
    (folder / "shard-00001.000001").write_text(json.dumps(gone))
    claims = Claims(folder, lease=0.3)
    numbers = [r.number for r in ShardWorker(options(), custom=custom, claims=claims).work_on_all()]
    assert sorted(numbers) == done.manifest.shards
    assert numbers[-1] == 1


class TinyModel2(TinyModel):
    """Computes something else."""

    version = "2"


def test_a_worker_that_would_compute_something_else_is_refused(
    options: MakeOptions, custom: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(options(hop=0.5), custom=custom)
    with pytest.raises(ResultsError, match=r"other settings .*\(hop=0.25 instead of 0.5"):
        ShardWorker(options(hop=0.25), custom=custom)
    with pytest.raises(ResultsError, match=r"classifier_threshold=0.1 instead of 0.5"):
        ShardWorker(options(classifier_threshold=0.1), custom=custom)
    worker = ShardWorker(options(), custom=custom)
    assert worker.options.hop == 0.5  # the plan's
    worker.work(1)
    with pytest.raises(ResultsError, match=r"other results than those before it \(.*code="):
        ShardWorker(options(), custom={"tiny": TinyModel2}).work(2)
    monkeypatch.setattr(agreement, "__version__", "9.9")
    with pytest.raises(ResultsError, match=r"\(bacpipe 9.9 instead of "):
        ShardWorker(options(), custom=custom)


def test_other_weights_are_refused(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"audio_dir": recordings, "main_results_dir": tmp_path / "results"}
    options = make_options(**settings, models=["birdnet"])
    found = plan(options)
    path = found.path.parent / "birdnet.json"
    contract = json.loads(path.read_text())
    agreement.agree(path, contract)
    other = json.loads(path.read_text())
    other["identity"]["checkpoint"] = {"weights": "0" * 64}
    with pytest.raises(ResultsError, match=r"birdnet.json: this worker .*checkpoint=.*instead of"):
        agreement.agree(path, other)
    for text, told in (
        ("[]", "is no agreement"),
        (json.dumps({**contract, "predictions": [1]}), "is no agreement"),
        ("[" * 100_000, "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(ResultsError, match=f"birdnet.json: .*{told}"):
            agreement.agree(path, contract)
    # Programs that synchronise folders leave such copies.
    (tmp_path / "results" / "field" / "shards" / "claims" / "shard-00001 (copy).done").touch()
    path.write_text(json.dumps(contract))
    assert set(shard_status(options)["state"]) == {"open"}


def test_a_second_manifest_needs_the_same_settings(
    options: MakeOptions, custom: dict[str, object]
) -> None:
    first = plan(options(), custom=custom)
    ShardWorker(options(), custom=custom).work(1)
    with pytest.raises(SettingsError, match=r"\(hop=0.5 instead of None\); a data set has one man"):
        plan(options(hop=0.5), custom=custom)
    second = plan(options(hours_per_shard=3 / 3600), custom=custom, anew=True)
    assert len(second.shards) > len(first.shards)
    worker = ShardWorker(options(), custom=custom)
    # What was done under the first is kept, though it is of other shards now.
    kept = sum(report.reports["tiny"].kept for report in worker.work_on_all())
    assert kept == len(first.part(1).names) or kept > 0
    assert len(merge(options())["tiny"].entries) == 5


def test_a_manifest_that_no_longer_fits_the_folder(
    options: MakeOptions,
    custom: dict[str, object],
    recordings: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = plan(options(), custom=custom)
    first = found.part(1).names
    kept = {name: (recordings / name).read_bytes() for name in first}
    (recordings / first[0]).unlink()
    worker = ShardWorker(options(), custom=custom)
    if len(first) > 1:
        with caplog.at_level(logging.WARNING):
            report = worker.work(1)
        assert f"1 of {len(first)} recordings is not there, such as {first[0]}" in caplog.text
        assert [name for name, _ in report.failed] == [first[0]]
        assert report.reports["tiny"].done == len(first) - 1
    for name in first[1:]:
        (recordings / name).unlink()
    with pytest.raises(ResultsError, match="manifest no longer fits"):
        worker.work(1)
    again = plan(options(), custom=custom)
    assert again.gone == len(kept)
    assert again.shards == found.shards[1:]
    with pytest.raises(ResultsNotFoundError, match=r"no shard 1; the shards are 2 to"):
        worker.work(1)


def test_no_manifest_or_a_damaged_one_is_a_sentence(
    options: MakeOptions, custom: dict[str, object], recordings: Path, tmp_path: Path
) -> None:
    with pytest.raises(ResultsNotFoundError, match="bacpipe shards plan"):
        ShardWorker(options(), custom=custom)
    found = plan(options(), custom=custom)
    whole = found.path.read_bytes()
    for damage in (b"", b"PAR1", whole[: len(whole) // 2], b"\0" * len(whole)):
        found.path.write_bytes(damage)
        with pytest.raises(ResultsError, match="this manifest is damaged"):
            shard_status(options())
    plan(options(), custom=custom, anew=True)
    assert len(shard_status(options())) == len(found.shards)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoRecordingsError):
        plan(options(audio_dir=tmp_path / "empty"), custom=custom)
    assert not (tmp_path / "sharded" / "empty").exists()


def test_results_among_the_recordings_have_no_shards(
    options: MakeOptions, custom: dict[str, object], recordings: Path
) -> None:
    inside = {"main_results_dir": recordings / "results"}
    plan(options(**inside), custom=custom)
    ShardWorker(options(**inside), custom=custom).work(1)
    write_recording(recordings / "results" / "field" / "embeddings" / "clip.wav", 1.0)
    assert plan(options(**inside), custom=custom).recordings == 5


def test_the_command_says_how_failures_are_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "my field"
    write_recording(folder / "a" / "good.wav", 3.0)
    (folder / "b").mkdir()
    (folder / "b" / "bad.wav").write_text("no audio")
    words = [f"audio_dir={folder}", f"main_results_dir={tmp_path / 'results'}", "device=cpu"]
    assert main(["shards", "status", *words, "models=birdnet"]) == 1
    command = capsys.readouterr().err.partition("plan them first, with: ")[2]
    plan_it = shlex.split(command.partition("bacpipe ")[2])
    assert plan_it == ["shards", "plan", *words[:2], "models=[birdnet]"]
    assert main([*plan_it, "hours_per_shard=0.001"]) == 0
    capsys.readouterr()
    assert main(["shards", "work", "--next", *words]) == 1  # of one shard, nothing is done
    told = "Recordings failed in shard 2. When they are mended, try them again"
    said = capsys.readouterr().out
    assert told in said
    assert main(["shards", "status", *words]) == 0
    assert told in capsys.readouterr().out
    (folder / "b" / "bad.wav").unlink()
    write_recording(folder / "b" / "bad.wav", 3.0)
    assert main(["shards", "work", "--next", *words]) == 0
    assert "0 shards done here; all are done.\n" + told in capsys.readouterr().out
    again = shlex.split(said.splitlines()[-1].partition("bacpipe ")[2])
    assert main([*again, "device=cpu"]) == 0
    said = capsys.readouterr().out
    assert "1 recording done, 0 kept" in said and "Recordings failed" not in said
    assert main(["shards", "work", "--next", *words]) == 0
    assert "Recordings failed" not in capsys.readouterr().out


def test_the_command_line(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [f"audio_dir={recordings}", f"main_results_dir={tmp_path / 'results'}"]
    assert main(["shards", "status", *words]) == 1
    assert "plan them first" in capsys.readouterr().err
    assert main(["shards", "plan", *words, "models=birdnet", "hours_per_shard=0.001"]) == 0
    printed = capsys.readouterr().out
    assert "5 recordings, about 0.0 h, in" in printed
    assert "shards work --next" in printed
    assert main(["shards", "status", *words]) == 0
    assert "0 of 5 recordings done" in capsys.readouterr().out
    assert main(["shards", "merge", *words]) == 1
    assert "are not done (1, " in capsys.readouterr().err
    assert main(["shards", "work", "--shard", "1", *words, "hop=1"]) == 1
    assert "hop=1 instead of None" in capsys.readouterr().err
    # A word behind an option is no value of it.
    assert main(["shards", "work", "--next", *words, "hop=1"]) == 1
    assert "hop=1 instead of None" in capsys.readouterr().err
    assert main(["shards", "work", "--shard", "2", *words, "device=cpu"]) == 0
    done = capsys.readouterr().out
    assert "shard 2: birdnet: 1 recording done" in done and "1 shard done here; 4 left" in done
    assert main(["shards", "work", "--shard", "77", *words]) == 1
    assert "there is no shard 77" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["shards", "merge", "--shard", "1", *words])
    assert "--shard belongs to bacpipe shards work" in capsys.readouterr().err
    for given, told in (
        (["status", "--shard", "0"], "--shard belongs to bacpipe shards work"),
        (["work", "--shard", "1", "--most", "1"], "--most 1 says nothing more"),
        (["work", "--shard", "0"], "--shard 0 is not possible"),
        (["work", "--most", "0"], "--most 0 is not possible"),
    ):
        with pytest.raises(SystemExit):
            main(["shards", *given, *words])
        assert told in capsys.readouterr().err
