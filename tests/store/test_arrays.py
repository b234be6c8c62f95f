from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.errors import ResultsError, StorageError
from bacpipe.store import arrays
from bacpipe.store.arrays import stack_rows


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array is too large."""
    monkeypatch.setattr(arrays, "free_memory", lambda: 0)


def test_mapped_results_equal_those_in_memory(
    run: Callable[..., bacpipe.Loader], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = run(classifier_threshold=0.3)
    array, by_file = loader.embeddings("array"), loader.embeddings()
    scores, classes = loader.predictions("array")
    scores_by_file, _ = loader.predictions("dict")
    assert not isinstance(array, np.memmap)
    before = sorted(loader.paths.dataset_path.rglob("*"))
    monkeypatch.setattr(arrays, "free_memory", lambda: 0)
    mapped = loader.embeddings("array")
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == np.float32
    np.testing.assert_array_equal(mapped, array)
    for name, part in loader.embeddings().items():
        np.testing.assert_array_equal(part, by_file[name])
    mapped_scores, same_classes = loader.predictions("array")
    assert same_classes == classes
    np.testing.assert_array_equal(mapped_scores, scores)
    for name, part in loader.predictions("dict")[0].items():
        np.testing.assert_array_equal(part, scores_by_file[name])
    assert not mapped.flags.writeable
    # Nothing is left beside the results, not even while the arrays are in use.
    assert sorted(loader.paths.dataset_path.rglob("*")) == before


def test_scores_agree_with_the_table(
    run: Callable[..., bacpipe.Loader],
) -> None:
    loader = run(classifier_threshold=0.0)
    scores, classes = loader.predictions("array")
    frame = loader.predictions("dataframe")
    assert scores.shape == (len(loader.embeddings("array")), 2)
    for column, name in classes.items():
        assert scores[:, column].max() == pytest.approx(frame[name].max())


def test_rows_are_asked_for_one_part_at_a_time(tmp_path: Path, no_memory: None) -> None:
    parts = [np.full((n, 3), n, np.float32) for n in (2, 5, 0, 1)]
    alive = 0

    def one_by_one() -> Iterator[np.ndarray]:
        nonlocal alive
        for part in parts:
            alive += 1
            yield part

    array = stack_rows(one_by_one(), 8, folder=tmp_path, what="a test")
    assert alive == 4
    np.testing.assert_array_equal(array, np.concatenate(parts))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_no_obstacle(tmp_path: Path, no_memory: None) -> None:
    part = np.ones((2, 2), np.float32)
    array = stack_rows([part], 2, folder=tmp_path / "absent", what="a test")
    np.testing.assert_array_equal(array, part)


def test_no_room_anywhere_is_explained(
    tmp_path: Path, no_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 7})
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(StorageError, match=r"a test takes 0\.0 GB.*Loader\.read_embedding_file"):
        stack_rows([np.ones((2, 2), np.float32)], 2, folder=tmp_path, what="a test")


@pytest.mark.parametrize("mapped", [True, False])
def test_rows_of_different_lengths_are_refused(
    tmp_path: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "free_memory", lambda: 0 if mapped else 2**30)
    parts = [np.ones((1, 2), np.float32), np.ones((1, 3), np.float32)]
    with pytest.raises(ResultsError, match="rows of 3 values among rows of 2"):
        stack_rows(parts, 2, folder=tmp_path, what="a test")


LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
from bacpipe.store import arrays
resource.setrlimit(resource.RLIMIT_DATA, (400 * 2**20, 400 * 2**20))
arrays.free_memory = lambda: 64 * 2**20
parts = (np.full((1000, 256), i, np.float32) for i in range(500))
array = arrays.stack_rows(parts, 500_000, folder=Path(sys.argv[1]), what="it")
assert array[::1000, 7].tolist() == list(range(500))
try:
    np.array(array)
except MemoryError:
    print("flat")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory")
def test_an_array_larger_than_the_allowed_memory_can_be_read(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LARGE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # 512 MB, where 400 MB are allowed: a copy in memory is refused.
    assert done.stdout == "flat\n", done.stderr


def test_single_recordings_are_found_by_either_name(run: Callable[..., bacpipe.Loader]) -> None:
    loader = run()
    expected = loader.embeddings()["north/a_tiny.npy"]
    for name in ("north/a.wav", "north/a_tiny.npy", loader.audio_dir / "north" / "a.wav"):
        np.testing.assert_array_equal(loader.read_embedding_file(name), expected)
