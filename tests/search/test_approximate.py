"""Approximate searches say what they are, and take what they do not know exactly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import bacpipe
from bacpipe.__main__ import main
from bacpipe.errors import ResultsError, ResultsNotFoundError, SettingsError
from bacpipe.search import approximate
from bacpipe.store.layout import SEARCH_INDEX
from bacpipe.store.verification import repair_results, verify_results
from tests.search.conftest import add_recordings

Given = Callable[[Mapping[str, np.ndarray]], bacpipe.Loader]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of tests are not too small for an index."""
    pytest.importorskip("faiss", reason="the extra 'search' is not installed")
    monkeypatch.setattr(approximate, "FEW", 0)


def clustered(count: int, seed: int, dim: int = 128) -> np.ndarray:
    """Windows in clusters, float32."""
    centres = np.random.default_rng(0).standard_normal((40, dim))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 40, count)] + 0.5 * rng.standard_normal((count, dim))
    return np.maximum(rows, 0).astype(np.float32)


def places(table: Any) -> set[tuple[str, float]]:
    return set(zip(table["recording"], table["start"], strict=True))


@pytest.mark.usefixtures("many")
def test_an_index_finds_what_it_says_and_similarities_are_exact(given: Given) -> None:
    loader = given({f"{name}/r": clustered(2000, i) for i, name in enumerate("abc")})
    about = bacpipe.build_search_index(loader=loader)
    assert about["windows"] == 6000 and about["recall"] >= 0.9 and about["seconds"] > 0
    queries = clustered(40, 99)
    exact = bacpipe.search(queries, loader=loader, k=50)
    found = bacpipe.search(queries, loader=loader, k=50, approximate=True)
    assert exact.attrs["bacpipe"]["exact"] and "recall" not in exact.attrs["bacpipe"]
    assert not found.attrs["bacpipe"]["exact"]
    assert found.attrs["bacpipe"]["recall"] == about["recall"]
    shares = []
    for number in range(len(queries)):
        true = exact[exact["query"] == number]
        rows = found[found["query"] == number]
        assert len(rows) == 50 and rows["similarity"].is_monotonic_decreasing
        shares.append(len(places(true) & places(rows)) / 50)
        both = true.merge(rows, on=["recording", "start"])
        np.testing.assert_allclose(both["similarity_x"], both["similarity_y"], atol=1e-12)
    assert np.mean(shares) > about["recall"] - 0.05


@pytest.mark.usefixtures("many")
def test_new_and_changed_recordings_are_compared_exactly(given: Given) -> None:
    first, second, third = (clustered(500, seed) for seed in (1, 2, 3))
    loader = given({"a": first, "b": second})
    bacpipe.build_search_index(loader=loader)
    add_recordings(loader, {"b": second[::-1], "c": third})
    for name, rows in {"b": second[::-1], "c": third}.items():
        for window in (0, 7, 499):
            (row,) = bacpipe.search(rows[window], loader=loader, k=1, approximate=True).to_dict(
                "records"
            )
            assert (row["recording"], row["start"]) == (f"{name}.wav", 3.0 * window)
    # Every window is found once, whether the index knows it or not.
    found = bacpipe.search(first[0], loader=loader, k=5000, approximate=True)
    assert len(places(found)) == len(found) == 1500


@pytest.mark.usefixtures("many")
def test_filters_gaps_and_values_that_are_not_numbers_hold_with_an_index(given: Given) -> None:
    rows = clustered(900, 5)
    rows[3, 0], rows[4] = np.nan, 0
    loader = given({"x/a": rows[:300], "x/b": rows[300:600], "y/c": rows[600:]})
    bacpipe.build_search_index(loader=loader)
    query = clustered(1, 6)[0]
    for more in (
        {"where": {"site": "y"}},
        {"where": {"recording": ["x/a.wav", "y/c.wav"]}, "min_gap": 10.0},
    ):
        exact = bacpipe.search(query, loader=loader, k=20, **more)
        found = bacpipe.search(query, loader=loader, k=20, approximate=True, **more)
        assert not found.attrs["bacpipe"]["exact"]
        assert len(places(exact) & places(found)) >= 18
        assert set(found["recording"]) <= set(exact["recording"])
    found = bacpipe.search(query, loader=loader, k=5000, approximate=True)
    assert len(found) == 899 and ("x/a.wav", 9.0) not in places(found)


def test_few_windows_are_compared_exactly_even_so(given: Given) -> None:
    pytest.importorskip("faiss", reason="the extra 'search' is not installed")
    loader = given({"a": clustered(300, 1)})
    with pytest.raises(ResultsNotFoundError, match="bacpipe search --build-index"):
        bacpipe.search(clustered(1, 2)[0], loader=loader, approximate=True)
    bacpipe.build_search_index(loader=loader)
    found = bacpipe.search(clustered(1, 2)[0], loader=loader, approximate=True)
    assert found.attrs["bacpipe"]["exact"]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("where", ["middle", "half", "other"])
def test_a_damaged_index_is_said_and_laid_aside(where: str, given: Given) -> None:
    loader = given({"a": clustered(400, 1)})
    bacpipe.build_search_index(loader=loader)
    results = loader.paths.main_results_dir
    assert not verify_results(results)
    path = loader.get_embedding_dir() / SEARCH_INDEX
    content = bytearray(path.read_bytes())
    if where == "half":
        content = content[: len(content) // 2]
    elif where == "middle":
        content[-1000] ^= 0x55
    else:
        content = bytearray(b"no index")
    path.write_bytes(content)
    (finding,) = verify_results(results)
    assert finding.path == path and "build it again" in finding.message
    if where != "middle":  # of which only `verify` looks at every byte
        with pytest.raises(ResultsError, match=f"{SEARCH_INDEX}.*damaged"):
            bacpipe.search(clustered(1, 2)[0], loader=loader, approximate=True)
    assert len(bacpipe.search(clustered(1, 2)[0], loader=loader)) == 50
    assert repair_results([finding]) == 1
    assert not verify_results(results) and not path.exists()


def test_missing_faiss_names_the_extra(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # every import of it fails
    loader = given({"a": clustered(300, 1)})
    for call in (
        lambda: bacpipe.build_search_index(loader=loader),
        lambda: bacpipe.search(clustered(1, 2)[0], loader=loader, approximate=True),
    ):
        with pytest.raises(SettingsError, match=r"An approximate search needs .*faiss"):
            call()
    assert not (loader.get_embedding_dir() / SEARCH_INDEX).exists()


@pytest.mark.usefixtures("many")
def test_the_command_builds_and_says_that_answers_are_approximate(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = given({"a": clustered(400, 1)})
    where = [f"audio_dir={loader.audio_dir}", f"main_results_dir={loader.paths.main_results_dir}"]
    assert main(["search", "--build-index", *where]) == 0
    assert "The index of 400 windows was built" in capsys.readouterr().out
    assert (loader.get_embedding_dir() / SEARCH_INDEX).is_file()
    assert main(["search", "--build-index", "clip.wav", *where]) != 0
    assert "takes no query" in capsys.readouterr().err
