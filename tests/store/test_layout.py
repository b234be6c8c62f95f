from __future__ import annotations

import ast
import re
from datetime import datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bacpipe.store import layout
from bacpipe.store.layout import (
    models_with_embeddings,
    result_stems,
    stamped_folder,
    stamped_folders,
)


def test_stems_are_the_recordings_own() -> None:
    assert result_stems(["a/x.wav", "b/x.wav"]) == {"a/x.wav": "a/x", "b/x.wav": "b/x"}


def test_names_of_result_files_are_spelt_once() -> None:
    """All else takes them from the layout."""
    names = {
        value
        for value in vars(layout).values()
        if isinstance(value, str) and re.fullmatch(r"[\w*-]+\.\w+", value)
    }
    assert len(names) > 30
    file = Path(layout.__file__)
    spelt = {
        (path.name, node.value)
        for path in file.parents[1].rglob("*.py")
        if path != file
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert spelt == {("demo.py", "README.txt")}  # that of the recordings


def test_names_that_differ_in_the_suffix_keep_it() -> None:
    assert result_stems(["x.wav", "x.flac", "y.wav"]) == {
        "x.wav": "x.wav",
        "x.flac": "x.flac",
        "y.wav": "y",
    }


def test_names_that_differ_in_case_do_not_collide_on_case_blind_disks() -> None:
    stems = result_stems(["X.wav", "x.flac"])
    assert len({stem.lower() for stem in stems.values()}) == 2


@given(
    st.lists(st.from_regex(r"[ab]{1,2}(\.[ab]{1,2}){0,2}\.(wav|flac)", fullmatch=True), unique=True)
)
def test_no_two_recordings_share_a_result(names: list[str]) -> None:
    names = list({name.lower(): name for name in names}.values())
    stems = result_stems(names)
    assert len({stem.lower() for stem in stems.values()}) == len(names)


def test_very_long_names_are_shortened_and_stay_apart() -> None:
    names = [f"{'ä' * 120}{i}.wav" for i in range(2)]
    stems = set(result_stems(names).values())
    assert len(stems) == 2
    assert all(len(stem.encode()) <= 200 for stem in stems)


def test_two_sets_within_a_minute_get_two_folders(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, 12, 30, 45)
    first = stamped_folder(tmp_path, "tiny-field", now)
    assert first.name == "2026-03-01_12-30___tiny-field"
    first.mkdir()
    second = stamped_folder(tmp_path, "tiny-field", now)
    assert second.name == "2026-03-01_12-30-45___tiny-field"
    second.mkdir()
    (tmp_path / "2026-03-01_12-31___other-field").mkdir()
    (tmp_path / "notes").mkdir()
    assert stamped_folders(tmp_path, "tiny-field") == [second, first]
    assert models_with_embeddings(tmp_path, "field") == ["other", "tiny"]
    assert stamped_folders(tmp_path / "absent", "tiny-field") == []
