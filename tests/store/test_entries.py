from __future__ import annotations

import hashlib
import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bacpipe.store.entries import (
    DAMAGED,
    DISCARDED,
    DONE,
    FAILED,
    REMOVED,
    Entries,
    Entry,
    FailedEntry,
    FinishedEntry,
    StoredEmbeddings,
    StoredPredictions,
    embeddings_state,
    predictions_state,
    read_entry,
)
from tests.conftest import finished_entry

NAME = "north/2024 ä.wav"
HASH = 64 * "a"


def done(**changes: Any) -> FinishedEntry:
    return finished_entry(NAME, **changes)


def stored(path: str, **changes: Any) -> StoredEmbeddings:
    return replace(StoredEmbeddings(path, 900, 2, HASH), **changes)


ENTRIES: dict[str, Entry] = {
    "plain": done(),
    "no predictions": done(predictions=None),
    "predictions": done(predictions=StoredPredictions("north/2024 ä_m.parquet", 9, HASH, 0.5, 1)),
    "suffix in the name": done(embeddings=stored(f"{NAME}_m.npy")),
    "another name": done(embeddings=stored("x~0123.npy")),
    "hash in capitals": done(embeddings=stored("x", sha256=64 * "A")),
    "hash that is short": done(embeddings=stored("x", sha256="abcd")),
    "no hash": done(embeddings=stored("north/2024 ä_m.npy", sha256=None)),
    "whole seconds": done(duration=3),
    "whole threshold": done(predictions=StoredPredictions(None, 0, None, 1, 20)),
    "large number": done(size=2**70),
    "segments": done(windows=2, segments=((0.0, 1.5, 2),), segments_hash="abc"),
    "truncated": done(truncated=2.25),
    "adopted": done(
        adopted=True, size=None, mtime_ns=None, predictions=None,
        embeddings=StoredEmbeddings("north/2024 ä_m.npy", 12, 0),
    ),
    "removed": done(status=REMOVED),
    "damaged": done(status=DAMAGED),
    "failed": FailedEntry(NAME, FAILED, "no audio"),
    "discarded": Entry(NAME, DISCARDED),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENTRIES)
def test_entries_come_back_as_they_were(kind: str) -> None:
    entry = ENTRIES[kind]
    entries = Entries({NAME: entry})
    assert entries[NAME] == entry
    line = json.dumps(entry.as_json())
    assert json.dumps(entries[NAME].as_json()) == line  # also the order, and 3 is not 3.0
    assert read_entry(json.loads(line)) == entry
    assert entries.is_done(NAME) == (entry.status == DONE)


def test_a_line_is_written_as_it_has_always_been() -> None:
    entry = finished_entry("a.wav", predictions=StoredPredictions("a.parquet", 9, HASH, 0.5, 20))
    assert json.dumps(entry.as_json()) == (
        '{"file": "a.wav", "status": "done", "size": 48044, "mtime_ns": 1700000000123456789, '
        '"duration": 3.0, "windows": 3, "padded": 0, "truncated": null, "segments": null, '
        '"segments_hash": null, "embeddings": {"path": "a_m.npy", "bytes": 248, '
        f'"sha256": "{entry.embeddings.sha256}", "dim": 10}}, '
        f'"predictions": {{"path": "a.parquet", "bytes": 9, "sha256": "{HASH}", '
        '"threshold": 0.5, "top": 20}}'
    )


DAMAGES: dict[str, Any] = {
    "file": "\0", "status": 3, "windows": -1, "duration": float("nan"), "padded": None,
    "embeddings": [1, 2], "predictions": {}, "segments": [[0.0, 1.0, 9]], "size": None,
    "mtime_ns": 1.5, "truncated": "no", "segments_hash": 7,
}  # fmt: skip


@pytest.mark.parametrize("key", DAMAGES)
def test_a_line_that_contradicts_itself_is_no_entry(key: str) -> None:
    line = done().as_json()
    assert read_entry(line) is not None
    assert read_entry({**line, key: DAMAGES[key]}) is None
    assert read_entry({k: v for k, v in line.items() if k not in {"windows", key}}) is None


@pytest.mark.parametrize("key", ["path", "bytes", "sha256", "dim"])
def test_files_that_contradict_themselves_are_no_entry(key: str) -> None:
    line = done().as_json()
    assert read_entry({**line, "embeddings": {**line["embeddings"], key: 2.5}}) is None  # type: ignore[dict-item]


def test_entries_that_look_alike_are_told_apart() -> None:
    kinds: list[Any] = [1, 1.0, 2, None, 0, 0.0]
    entries = Entries(
        {f"{i}.wav": finished_entry(f"{i}.wav", truncated=kind) for i, kind in enumerate(kinds)}
    )
    assert [repr(entry.truncated) for entry in entries.done.values()] == list(map(repr, kinds))


names = st.text(st.sampled_from("ab./é\ud800 1"), min_size=1, max_size=6)
hashes = st.sampled_from([None, "", "abcd", HASH, 64 * "A"])
changes = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from([DONE, REMOVED, DAMAGED]),
        "duration": st.floats(0, allow_nan=False) | st.integers(0),
        "windows": st.integers(0, 2**70),
        "padded": st.integers(0),
        "size": st.none() | st.integers(),
        "truncated": st.none() | st.floats(allow_nan=False) | st.integers(),
        "segments_hash": hashes,
        "embeddings": st.builds(
            StoredEmbeddings, names, st.integers(0), st.integers(0), hashes
        ),
        "predictions": st.none()
        | st.builds(
            StoredPredictions, st.none() | names, st.integers(0), st.none() | st.just(HASH),
            st.none() | st.integers(0, 1) | st.floats(0, 1), st.none() | st.integers(0),
        ),
    },
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(names, changes), max_size=3))
def test_any_entry_comes_back(changed: list[tuple[str, dict[str, Any]]]) -> None:
    entries, expected = Entries(), {}
    for name, values in changed:
        if values.get("size", 0) is None:
            values = {**values, "mtime_ns": None}
        entries[name] = expected[name] = finished_entry(name, **values)
    assert {name: json.dumps(entry.as_json()) for name, entry in entries.items()} == {
        name: json.dumps(entry.as_json()) for name, entry in expected.items()
    }
    assert dict(entries) == expected
    assert list(entries.done) == [name for name, entry in expected.items() if entry.is_done]


def test_entries_that_are_done() -> None:
    entries = Entries({name: finished_entry(name) for name in ("c.wav", "a.wav", "b.wav")})
    entries["b.wav"] = FailedEntry("b.wav", FAILED, "no audio")
    found = entries.done
    assert list(found) == ["c.wav", "a.wav"] and list(found.sorted()) == ["a.wav", "c.wav"]
    assert found == {"a.wav": entries["a.wav"], "c.wav": entries["c.wav"]}
    assert "b.wav" not in found and found.get("b.wav") is None and len(found) == 2
    assert list(found.where(lambda entry: entry.file > "b")) == ["c.wav"]
    assert entries.finished("b.wav") is None and entries.finished("d.wav") is None
    assert entries.finished("a.wav") == found["a.wav"]


def test_an_entry_takes_little_memory() -> None:
    count = 4000
    entries, version = Entries(), 0
    tracemalloc.start()
    try:
        for i in range(count):
            name = f"site{i // 100:03}/20240501_{i:06}.wav"
            made = StoredPredictions(f"{name[:-4]}_m.parquet", i, f"{i:064x}", 0.5, 1)
            entries[name] = finished_entry(name, windows=i, size=1000 + i, predictions=made)
            assert entries.version > version
            version = entries.version
        taken = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert taken < 600  # a dictionary takes 2 kB; threads of other tests may allocate, too
    found = entries.done["site001/20240501_000123.wav"].predictions
    assert found is not None and found.sha256 == f"{123:064x}"


# As they have always been computed: results that were made from these states stay valid.


@given(st.dictionaries(names, st.integers(0, 30)))
def test_states_are_those_of_one_text(windows: dict[str, int]) -> None:
    entries = Entries({name: finished_entry(name, windows=n) for name, n in windows.items()})
    lines = {name: entry.as_json() for name, entry in entries.items()}
    texts = sorted(
        f"{name} {line['windows']} {line['duration']} {line['embeddings']['sha256']}"  # type: ignore[index]
        for name, line in lines.items()
    )
    whole = "\n".join(texts).encode(errors="surrogatepass")
    assert embeddings_state(entries.done) == hashlib.sha256(whole).hexdigest()
    rows = [
        [name, line["windows"], line["embeddings"]["sha256"], line["predictions"]]  # type: ignore[index]
        for name, line in sorted(lines.items())
    ]
    whole = json.dumps(["folder", rows], sort_keys=True).encode()
    assert predictions_state("folder", entries.done) == hashlib.sha256(whole).hexdigest()
