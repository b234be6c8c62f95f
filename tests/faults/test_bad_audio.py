"""Hundreds of broken recordings in one run: right embeddings, or a sentence, and nothing else."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import bacpipe
from tests.conftest import TinyModel
from tests.faults.corpus import RATE, Corpus, Fails, Whole, Windows, make_corpus
from tests.test_bad_input import failures

MOST_MEMORY = 300 << 20  # bytes: all of it together, many times what one recording needs


class Outcome(NamedTuple):
    expected: Corpus
    loader: bacpipe.Loader
    failed: dict[str, str]
    peak: int


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run over the whole corpus."""
    base = tmp_path_factory.mktemp("broken")
    expected = make_corpus(base / "field")
    tracemalloc.start()
    try:
        loader = bacpipe.generate_embeddings(
            audio_dir=base / "field",
            main_results_dir=base / "results",
            CustomModel=TinyModel,
            model_name="tiny",
            device="cpu",
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Outcome(expected, loader, failures(loader), peak)


def reference(samples: np.ndarray) -> np.ndarray:
    """Embeddings of the tiny model, computed from the samples that were written."""
    mono = samples.mean(axis=1)
    missing = -len(mono) % RATE
    whole = np.pad(mono, (0, missing), mode="wrap")
    if missing:  # only the last window's own samples fill it
        last = mono[len(mono) // RATE * RATE :]
        whole[-RATE:] = np.pad(last, (0, missing), mode="wrap")
    return np.abs(whole).reshape(-1, 10, RATE // 10).mean(axis=2)


@pytest.mark.timeout(120)
def test_every_file_gets_embeddings_or_a_sentence(outcome: Outcome) -> None:
    assert len(outcome.expected) >= 200
    wrong = []
    entries = outcome.loader.entries
    for name, expected in outcome.expected.items():
        if (name in entries) == (name in outcome.failed):
            wrong.append(f"{name}: is in {'both' if name in entries else 'neither'} of the tables")
        elif name in entries and not isinstance(expected, Fails):
            if entries[name].windows != expected.count:
                wrong.append(f"{name}: {entries[name].windows} windows, not {expected.count}")
        elif name in entries:
            wrong.append(f"{name}: was embedded ({entries[name].windows} windows)")
        elif isinstance(expected, Windows):
            wrong.append(f"{name}: failed ({outcome.failed[name]})")
        elif isinstance(expected, Fails) and not re.search(expected.pattern, outcome.failed[name]):
            wrong.append(f"{name}: says {outcome.failed[name]!r}, not {expected.pattern!r}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(outcome.expected)}:", *wrong])
    assert set(entries) | set(outcome.failed) == set(outcome.expected)


def test_embeddings_are_those_of_the_samples(outcome: Outcome) -> None:
    compared = 0
    embeddings = outcome.loader.embeddings("dict")
    for name, expected in outcome.expected.items():
        if isinstance(expected, Windows) and expected.samples is not None:
            found = embeddings[outcome.loader.entries[name].embeddings.path]
            np.testing.assert_allclose(found, reference(expected.samples), atol=1e-4, err_msg=name)
            compared += 1
    assert compared > 50
    assert all(np.isfinite(rows).all() for rows in embeddings.values())


def test_every_reason_is_one_sentence_about_the_file(outcome: Outcome) -> None:
    for name, reason in outcome.failed.items():
        assert reason.startswith(f"{name}: "), reason
        assert "\n" not in reason and len(reason) < 400, reason
        assert "unexpected error" not in reason, reason


def test_lossy_files_that_end_a_little_early_are_mostly_noticed(outcome: Outcome) -> None:
    names = [name for name, expected in outcome.expected.items() if isinstance(expected, Whole)]
    assert names
    for name in set(names) & set(outcome.loader.entries):
        assert outcome.loader.entries[name].duration == pytest.approx(2.5, abs=0.2), name


def test_memory_stays_bounded(outcome: Outcome) -> None:
    assert outcome.peak < MOST_MEMORY


def test_nothing_but_results_was_written(outcome: Outcome) -> None:
    base = Path(outcome.loader.audio_dir).parent
    assert sorted(path.name for path in base.iterdir()) == ["field", "results"]
    assert not list((base / "results").rglob("*.bacpipe-tmp"))
