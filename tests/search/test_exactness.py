"""A search finds what a comparison with every embedding finds, whatever the embeddings are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import StorageError
from bacpipe.models.backends.cpu import integers
from bacpipe.search.index import SearchIndex
from bacpipe.store import codes as stored_codes
from bacpipe.store.codes import encode
from bacpipe.store.verification import repair_results, verify_results
from tests.search.conftest import add_recordings, cosines

Given = Callable[[Mapping[str, np.ndarray]], bacpipe.Loader]


def of_kind(kind: str, rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Embeddings of a certain kind, float32."""
    rows = rng.standard_normal((count, dim))
    if kind == "non-negative":
        rows = np.maximum(rows, 0)
    elif kind == "with a common part":
        rows = 0.05 * rows + rng.standard_normal(dim)
    elif kind == "nearly alike":
        rows = 1e-4 * rows + 1
    elif kind == "with outliers":
        rows[np.arange(count), rng.integers(0, dim, count)] = 500
    elif kind == "of any length":
        rows *= 10.0 ** rng.uniform(-15, 15, (count, 1))
    elif kind == "alike, constant and zero":
        rows[: count // 2] = rows[0]
        rows[-9:-3] = 2.5
        rows[-3:] = 0
    return rows.astype(np.float32)


KINDS = (
    "of either sign", "non-negative", "with a common part", "nearly alike", "with outliers",
    "of any length", "alike, constant and zero",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [3, 96, 1500])
def test_codes_are_as_near_as_they_say(kind: str, dim: int) -> None:
    rows = of_kind(kind, np.random.default_rng(dim), 200, dim)
    codes, (scale, shift, total, error, norm) = encode(rows)
    decoded = scale[:, None].astype(float) * codes + shift[:, None]
    length = np.linalg.norm(rows.astype(float), axis=1)
    unit = rows / np.where(length > 0, length, 1)[:, None]
    assert (np.linalg.norm(unit - decoded, axis=1) <= error).all()
    np.testing.assert_allclose(norm, length, rtol=1e-6)
    np.testing.assert_allclose(total, decoded.sum(axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_search_is_exact(kind: str, given: Given) -> None:
    rng = np.random.default_rng(7)
    rows = of_kind(kind, rng, 3000, 64)
    loader = given({f"{name}/r": part for name, part in zip("abc", np.split(rows, 3), strict=True)})
    queries = np.concatenate([rows[[0, 1500, 2990]], of_kind(kind, rng, 20, 64)[:2]])
    found = bacpipe.search(queries, loader=loader, k=40)
    for number, query in enumerate(queries):
        table = found[found["query"] == number]
        truth = cosines(rows, query)
        at = np.array([ord(r[0]) - ord("a") for r in table["recording"]]) * 1000
        at += (table["start"] / 3).round().astype(int).to_numpy()
        best = np.lexsort((np.arange(len(rows)), -truth.round(12)))[:40]
        np.testing.assert_allclose(table["similarity"], truth[at], atol=1e-12)
        np.testing.assert_allclose(table["similarity"], truth[best], atol=1e-12)
        assert table["rank"].to_list() == list(range(1, 41))


def test_equally_near_windows_come_in_the_order_of_recordings(given: Given) -> None:
    row = np.random.default_rng(0).standard_normal((1, 32))
    loader = given({name: np.repeat(row, 30, axis=0) for name in ("c", "a", "b")})
    found = bacpipe.search(row[0], loader=loader, k=35)
    assert found["recording"].to_list() == ["a.wav"] * 30 + ["b.wav"] * 5
    assert found["start"].to_list() == [3.0 * i for i in [*range(30), *range(5)]]


def test_values_that_are_not_numbers_are_never_found(given: Given) -> None:
    rows = np.random.default_rng(0).standard_normal((20, 8))
    rows[4, 2], rows[5, 0] = np.nan, np.inf
    found = bacpipe.search(rows[0], loader=given({"a": rows}), k=50)
    assert len(found) == 18
    assert not {12.0, 15.0} & set(found["start"])


def test_new_changed_and_removed_recordings_are_seen_at_once(given: Given) -> None:
    rng = np.random.default_rng(3)
    first, second, third = rng.standard_normal((3, 50, 16))
    loader = given({"a": first, "b": second})
    index = SearchIndex(loader)
    assert bacpipe.search(third[7], loader=index, k=1)["similarity"][0] < 0.99
    add_recordings(loader, {"c": third})
    found = bacpipe.search(third[7], loader=index, k=1)
    assert (found["recording"][0], found["start"][0]) == ("c.wav", 21.0)
    # Another content under the name of before: its old codes must not be used.
    add_recordings(loader, {"a": third[::-1]})
    found = bacpipe.search(third[7], loader=loader, k=2)
    assert sorted(found["recording"]) == ["a.wav", "c.wav"]
    np.testing.assert_allclose(found["similarity"], 1)
    assert bacpipe.search(first[7], loader=index, k=1)["similarity"][0] < 0.99


def test_packs_do_not_become_many(given: Given) -> None:
    rng = np.random.default_rng(3)
    loader = given({"r0": rng.standard_normal((20, 16))})
    for number in range(1, 20):
        add_recordings(loader, {f"r{number}": rng.standard_normal((20, 16))})
        assert len(bacpipe.search(np.ones(16), loader=loader, k=500)) == 20 * (number + 1)
    assert len(list(loader.get_embedding_dir().glob("search-*.codes"))) <= 6


def test_results_that_nobody_may_write_to_are_searched(given: Given, monkeypatch) -> None:
    rows = np.random.default_rng(3).standard_normal((20, 16))
    loader = given({"a": rows})
    expected = bacpipe.search(rows[3], loader=loader, k=5)
    folder = loader.get_embedding_dir()
    for path in folder.glob("search-*"):
        path.unlink()

    def full(path):
        raise StorageError(f"{path}: the disk is full")

    monkeypatch.setattr(stored_codes, "replacing", full)
    assert bacpipe.search(rows[3], loader=opened_again(loader), k=5).equals(expected)
    assert not list(folder.glob("search-*"))


def opened_again(loader: bacpipe.Loader) -> bacpipe.Loader:
    return bacpipe.Loader(
        loader.audio_dir, "birdnet", main_results_dir=loader.paths.main_results_dir
    )


def test_without_integer_products_the_result_is_the_same(given: Given, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    loader = given({"a": rng.standard_normal((500, 1100))})
    query = rng.standard_normal(1100)
    expected = bacpipe.search(query, loader=loader)

    def wrong(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return (rows.int() @ columns.int()).clamp(-(2**15), 2**15 - 1)  # as where it saturates

    for broken in (wrong, None):
        integers._int_mm_works.cache_clear()
        monkeypatch.setattr(torch, "_int_mm", broken)
        assert not integers._int_mm_works(1, 1100)
        assert bacpipe.search(query, loader=loader).equals(expected)
    integers._int_mm_works.cache_clear()


@pytest.mark.parametrize("where", ["codes", "numbers", "list", "end", "half"])
def test_damaged_codes_are_found_and_made_again(where: str, given: Given) -> None:
    rows = np.random.default_rng(5).standard_normal((300, 64))
    loader = given({"a": rows})
    expected = bacpipe.search(rows[5], loader=loader, k=20)
    (path,) = loader.get_embedding_dir().glob("search-*.codes")
    content = bytearray(path.read_bytes())
    if where == "half":
        content = content[: len(content) // 2]
    else:
        place = {"codes": 5 * 64 + 1, "numbers": 300 * 64 + 24, "list": -100, "end": -3}[where]
        for i in range(place, place + 2):
            content[i] ^= 0x55
    path.write_bytes(content)
    results = loader.paths.main_results_dir
    findings = verify_results(results)
    assert [finding.path for finding in findings] == [path]
    assert "search codes" in findings[0].message
    if where in {"list", "end", "half"}:  # a search sees these, too
        assert bacpipe.search(rows[5], loader=opened_again(loader), k=20).equals(expected)
        assert not path.exists()
    else:
        assert repair_results(findings) == 1
        assert not verify_results(results)
        assert bacpipe.search(rows[5], loader=opened_again(loader), k=20).equals(expected)
    assert not verify_results(results)


def test_codes_that_contradict_an_embedding_are_made_again(given: Given) -> None:
    rows = np.random.default_rng(5).standard_normal((300, 64))
    loader = given({"a": rows})
    expected = bacpipe.search(rows[5], loader=loader, k=20)
    (path,) = loader.get_embedding_dir().glob("search-*.codes")
    content = bytearray(path.read_bytes())
    content[5 * 64 : 6 * 64] = content[9 * 64 : 10 * 64]  # window 9 would be found for window 5
    content[9 * 64 : 10 * 64] = path.read_bytes()[5 * 64 : 6 * 64]
    path.write_bytes(content)
    assert bacpipe.search(rows[5], loader=opened_again(loader), k=20).equals(expected)
    assert not path.exists()


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (3, 1500)])
def test_products_of_integers_are_exact_however_the_numbers_lie(shape: tuple[int, int]) -> None:
    few, dim = shape
    rng = np.random.default_rng(0)
    queries = torch.from_numpy(rng.integers(-127, 128, (dim, few)).astype(np.int8)).T
    codes = torch.from_numpy(rng.integers(-128, 128, (70, dim)).astype(np.int8))
    for many in (codes, codes[:1], codes[5:]):
        products = integers.integer_products(queries, many)
        assert torch.equal(products, queries.int() @ many.int().T)
