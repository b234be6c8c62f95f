"""A short, repeatable share of the fuzzing, and properties that hold for any input.

`tests.faults.fuzz` does the same for as long as one likes, guided by coverage.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bacpipe.annotations.table import read_annotations
from bacpipe.audio.timestamps import get_dt_filename
from bacpipe.errors import ResultsError, SettingsError
from bacpipe.options import KEYS, make_options, read_overrides
from bacpipe.store.arrays import read_npy
from bacpipe.store.entries import Entry, FinishedEntry, is_header, read_entry
from bacpipe.store.layout import path_inside, result_stems
from bacpipe.user_input import load_yaml
from tests.faults.fuzz import mutate
from tests.faults.targets import NASTY, TARGETS, as_json, as_yaml

# Fixtures hold folders that every example writes anew.
REPEATABLE = settings(
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.recursive(
    st.sampled_from([value for value in NASTY if not isinstance(value, list | dict)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
EXAMPLES = {"audio": 120, "recorder": 100, "annotations": 80, "places": 80, "yaml": 60,
            "journal": 60, "metadata": 60, "predictions": 40}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_gets_a_sentence(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    seeds = target.seeds()
    for data in seeds:
        target(data)
    rng = random.Random(name)
    for _ in range(EXAMPLES[name]):
        target(mutate(rng.choice(seeds), seeds, rng))


def test_every_target_has_examples() -> None:
    assert set(EXAMPLES) == set(TARGETS)


def test_a_target_tells_what_is_no_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("windows")

    monkeypatch.setattr("tests.faults.targets.read_recording", broken)
    with pytest.raises(KeyError):
        TARGETS["audio"](tmp_path)(b"RIFF")


@REPEATABLE
@given(name=st.sampled_from(sorted({*KEYS["config"], *KEYS["settings"]})), value=VALUES)
def test_any_value_of_a_setting_is_taken_or_refused(name: str, value: Any, tmp_path: Path) -> None:
    which = "config" if name in KEYS["config"] else "settings"
    path = tmp_path / f"{which}.yaml"
    path.write_bytes(as_yaml({name: value}))
    try:
        make_options(**read_overrides(path, which))
    except SettingsError as error:
        assert name in str(error) or path.name in str(error)
        assert len(str(error)) < 2000


@REPEATABLE
@given(text=st.text(max_size=400))
def test_any_text_is_yaml_or_not(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        read_overrides(path, "settings")
    except SettingsError as error:
        assert "settings.yaml" in str(error)


@pytest.mark.parametrize("text", ["[" * 200_000, "- " * 200_000 + "x", "{a: " * 100_000])
def test_deep_yaml_does_not_end_the_process(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"settings\.yaml: this is not valid YAML"):
        read_overrides(path, "settings")


def test_aliases_that_multiply_cost_nothing(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    names = "abcdefghijklmnop"
    for one, other in itertools.pairwise(names):
        lines.append(f"{other}: &{other} [{', '.join([f'*{one}'] * 10)}]")
    path = tmp_path / "settings.yaml"
    path.write_text("\n".join(lines[:-1]) + "\n" + f"padding: [{', '.join(['*o'] * 10)}]\n")
    assert len(load_yaml(path.read_text())["o"]) == 10
    with pytest.raises(SettingsError, match="has no key 'a'"):
        read_overrides(path, "settings")
    # 10 ** 15 words, if anybody wrote them out.
    with pytest.raises(SettingsError, match=r"^padding=\[\[\[\[\.\.\.\]"):
        make_options(padding=load_yaml(path.read_text())["padding"])


CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=20
).map(str.strip)
TIMES = st.floats(0, 1e6, allow_nan=False).map(lambda x: round(x, 3))


@REPEATABLE
@given(rows=st.lists(st.tuples(TIMES, TIMES, CELLS), min_size=1, max_size=5))
def test_annotations_come_back_as_they_were_written(
    rows: list[tuple[float, float, str]], tmp_path: Path
) -> None:
    rows = [(min(a, b), max(a, b) + 0.5, label) for a, b, label in rows]
    path = tmp_path / "annotations.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["audiofilename", "start", "end", "label:species"])
        writer.writerows(["a.wav", start, end, label] for start, end, label in rows)
    table = read_annotations(path, ["a.wav"])
    found = [
        (row.start, row.end, "" if row.label is None or row.label != row.label else row.label)
        for row in table.rename(columns={"label:species": "label"}).itertuples()
    ]
    assert found == list(dict.fromkeys(rows))


@REPEATABLE
@given(line=st.dictionaries(
    st.sampled_from(["file", "status", "windows", "duration", "padded", "embeddings",
                     "predictions", "segments", "size", "mtime_ns", "adopted", "identity"]),
    VALUES,
))  # fmt: skip
def test_any_line_of_a_journal_can_be_judged(line: dict[str, Any]) -> None:
    entry = read_entry(line)
    assert entry is None or isinstance(entry, Entry)
    assert is_header(line) in (True, False)
    if isinstance(entry, FinishedEntry):
        assert math.isfinite(entry.duration) and entry.windows >= 0
        assert read_entry(json.loads(json.dumps(entry.as_json()))) == entry


@REPEATABLE
@given(data=st.binary(max_size=300))
def test_any_bytes_are_an_array_or_not(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises((ValueError, EOFError)):
        read_npy(path)


@REPEATABLE
@given(
    shape=st.lists(st.sampled_from([-1, 0, 1, 3, 10**6, 2**40]), max_size=3),
    kind=st.sampled_from(["<f4", "<f8", "<i4", "|O", "<U4", "<M8[s]", "|V8"]),
    size=st.integers(0, 100),
)
def test_headers_of_arrays_may_lie(shape: list[int], kind: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    length = 118
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little")
        + header.ljust(length - 1).encode() + b"\n" + bytes(size)
    )  # fmt: skip
    honest = kind[1] in "fi" and math.prod(shape) * np.dtype(kind).itemsize == size
    assume(not any(length < 0 for length in shape) or not honest)
    if honest:
        assert read_npy(path).shape == tuple(shape)
    else:
        with pytest.raises(ValueError):
            read_npy(path)


@REPEATABLE
@given(name=st.text(max_size=40))
def test_names_never_stop_anybody(name: str) -> None:
    found = get_dt_filename(name)
    assert found is None or 1970 <= found.year < 2100


PARTS = st.text(st.sampled_from("aA.ä~ \t"), min_size=1, max_size=6).filter(
    lambda part: part.strip(".") != ""
)


@REPEATABLE
@given(names=st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), unique=True))
def test_recordings_never_share_a_result(names: list[str]) -> None:
    recordings = [f"{name}{suffix}" for name in names for suffix in (".wav", ".flac", ".WAV")]
    assume(len({name.lower() for name in recordings}) >= len(recordings) // 2)
    stems = result_stems(recordings)
    assert len(set(stems.values())) == len(recordings)


@REPEATABLE
@given(parts=st.lists(st.sampled_from(["..", "a", ".", "", "\0", "x" * 300, "/", "link"])))
def test_paths_lie_inside_or_are_refused(parts: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir(exist_ok=True)
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to(tmp_path)
    try:
        path = path_inside(folder, "/".join(parts), what="the journal")
    except ResultsError:
        return
    assert path.resolve().is_relative_to(folder.resolve())
    assert json.loads(as_json(parts)) == parts
