from __future__ import annotations

import hashlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacpipe.store.entries import DoneLines, Lines, embeddings_state, predictions_state


def done(name: str, *, windows: int = 3, **changes: Any) -> dict[str, Any]:
    """A line as runs write it."""
    digest = hashlib.sha256(ascii((name, windows)).encode()).hexdigest()
    stem = name.rsplit(".", 1)[0]
    return {
        "file": name,
        "status": "done",
        "size": 48_044,
        "mtime_ns": 1_700_000_000_123_456_789,
        "duration": 3.0,
        "windows": windows,
        "padded": 0,
        "truncated": None,
        "segments": None,
        "segments_hash": None,
        "embeddings": {"path": f"{stem}_m.npy", "bytes": 168, "sha256": digest, "dim": 10},
        "predictions": {"path": None, "bytes": 0, "threshold": 0.5, "top": 20},
        **changes,
    }


NAME = "north/2024 ä.wav"
LINES = {
    "plain": done(NAME),
    "no predictions": done(NAME, predictions=None),
    "predictions": done(
        NAME,
        predictions={"path": "north/2024 ä_m.parquet", "bytes": 9, "sha256": 64 * "a", "top": 1},
    ),
    "suffix in the name": done(NAME, embeddings={"path": f"{NAME}_m.npy", "bytes": 9, "dim": 2}),
    "another name": done(NAME, embeddings={"path": "x~0123.npy", "bytes": 9, "dim": 2}),
    "hash in capitals": done(NAME, embeddings={"path": "x", "bytes": 9, "sha256": 64 * "A"}),
    "hash that is short": done(NAME, embeddings={"path": "x", "bytes": 9, "sha256": "abcd"}),
    "whole seconds": done(NAME, duration=3),
    "seconds that are none": done(NAME, duration=True),
    "large number": done(NAME, size=2**70),
    "segments": done(NAME, segments=[[0.0, 1.5, 2]], segments_hash="abc"),
    "truncated": done(NAME, truncated=2.25),
    "adopted": {
        "file": NAME, "status": "done", "duration": 1.5, "windows": 2, "adopted": True,
        "embeddings": {"path": "north/2024 ä_m.npy", "dim": 0, "bytes": 12},
    },
    "removed": done(NAME, status="removed"),
    "failed": {"file": NAME, "status": "failed", "reason": "no audio"},
    "of a later version": done(NAME, extra={"nested": [1, {"a": None}]}, other="text"),
    "embeddings that are none": done(NAME, embeddings=[1, 2]),
    "path that is none": done(NAME, embeddings={"path": 5, "bytes": 9, "dim": 2}),
    "no hash": done(NAME, embeddings={"path": "x", "bytes": 9, "sha256": None, "dim": 2}),
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
def test_lines_come_back_as_they_were(kind: str) -> None:
    line = LINES[kind]
    lines = Lines({NAME: line})
    assert json.dumps(lines[NAME]) == json.dumps(line)  # also the order, and 3 is not 3.0
    assert lines.status(NAME) == line["status"]
    lines[NAME]["status"] = "changed"
    assert lines[NAME] == line


def test_lines_that_look_alike_are_told_apart() -> None:
    kinds: list[Any] = [1, 1.0, True, "1", None, 0, False, ""]
    lines = Lines({f"{i}.wav": done(f"{i}.wav", truncated=kind) for i, kind in enumerate(kinds)})
    assert [repr(line["truncated"]) for line in lines.values()] == list(map(repr, kinds))


names = st.text(st.sampled_from("ab./é\ud800 1"), min_size=1, max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)


@given(
    st.lists(st.tuples(names, st.dictionaries(st.sampled_from([*done("")]), values)), max_size=6)
)
def test_any_line_comes_back(changes: list[tuple[str, dict[str, Any]]]) -> None:
    lines, expected = Lines(), {}
    for name, changed in changes:
        lines[name] = expected[name] = {**done(name), **changed}
    assert {name: json.dumps(line) for name, line in lines.items()} == {
        name: json.dumps(line) for name, line in expected.items()
    }
    assert list(lines.with_status("done")) == [
        name for name, line in expected.items() if line["status"] == "done"
    ]


def test_lines_that_are_done() -> None:
    lines = Lines({name: done(name) for name in ("c.wav", "a.wav", "b.wav")})
    lines["b.wav"] = {"file": "b.wav", "status": "failed", "reason": "no audio"}
    found = DoneLines(lines, list(lines.with_status("done")))
    assert list(found) == ["c.wav", "a.wav"] and list(found.sorted()) == ["a.wav", "c.wav"]
    assert found == {"a.wav": lines["a.wav"], "c.wav": lines["c.wav"]}
    assert "b.wav" not in found and found.get("b.wav") is None and len(found) == 2
    assert list(found.where(lambda line: line["file"] > "b")) == ["c.wav"]


def test_a_line_takes_little_memory() -> None:
    count = 4000
    lines, version = Lines(), 0
    tracemalloc.start()
    try:
        for i in range(count):
            name = f"site{i // 100:03}/20240501_{i:06}.wav"
            stored = {"path": f"{name[:-4]}_m.parquet", "bytes": i, "sha256": f"{i:064x}", "top": 1}
            lines[name] = done(name, windows=i, size=1000 + i, predictions=stored)
            assert lines.version > version
            version = lines.version
        taken = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert taken < 600  # a dictionary takes 2 kB; threads of other tests may allocate, too
    assert lines["site001/20240501_000123.wav"]["predictions"]["sha256"] == f"{123:064x}"


# As they have always been computed: results that were made from these states stay valid.


@given(st.dictionaries(names, st.integers(0, 30)))
def test_states_are_those_of_one_text(windows: dict[str, int]) -> None:
    lines = {name: done(name, windows=count) for name, count in windows.items()}
    texts = sorted(
        f"{name} {line['windows']} {line['duration']} {line['embeddings']['sha256']}"
        for name, line in lines.items()
    )
    whole = "\n".join(texts).encode(errors="surrogatepass")
    assert embeddings_state(Lines(lines)) == hashlib.sha256(whole).hexdigest()
    rows = [
        [name, line["windows"], line["embeddings"]["sha256"], line["predictions"]]
        for name, line in sorted(lines.items())
    ]
    whole = json.dumps(["folder", rows], sort_keys=True).encode()
    assert predictions_state("folder", Lines(lines)) == hashlib.sha256(whole).hexdigest()
