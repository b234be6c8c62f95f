"""How quick and how exact a search is, beside brute force, faiss and usearch.

    python benchmarks/search.py [--windows 1000000] [--dim 1024] [--recordings 100]
                                [--others] [--index]

Embeddings are made up: non-negative, sparse, in clusters whose nearest windows are about as similar
as those of BirdNET, which makes candidates hard to tell apart.  They are written as a data set with
its journal, and searched as users would.  CPU times are those of the process with one thread, the
best of several, methods interleaved; memory is private (RssAnon).  Where the embeddings do not
stay in memory, brute force is done once, for the truth.  faiss and usearch (which
perch-hoplite uses) take part where they are installed, with ``--others``; usearch's graph is built
over ``--usearch`` windows only, because that takes minutes.  ``--index`` builds the approximate
index (extra ``search``) and searches by it, too.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import bacpipe
from bacpipe.search.approximate import build
from bacpipe.search.filters import wanted_windows
from bacpipe.search.index import SearchIndex
from bacpipe.search.scan import Queries
from bacpipe.store.embedding_set import create_set
from bacpipe.store.entries import DONE, FinishedEntry, StoredEmbeddings
from bacpipe.store.files import EmbeddingFile
from bacpipe.store.journal import RunJournal
from bacpipe.store.layout import SEARCH_INDEX
from bacpipe.store.whereabouts import Whereabouts

K = 50


def made_up(windows: int, dim: int, rng: np.random.Generator, seeds: np.ndarray) -> np.ndarray:
    """Mixtures of two seeds with noise of their own, float32."""
    one, other = rng.integers(0, len(seeds), (2, windows))
    share = rng.uniform(0.55, 1, (windows, 1)).astype(np.float32)
    rows = share * seeds[one] + (1 - share) * seeds[other]
    rows += rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(0.12)
    return np.maximum(rows, 0, out=rows)


def data_set(folder: Path, windows: int, dim: int, recordings: int) -> bacpipe.Loader:
    """A data set whose embeddings are made up; there are no sounds."""
    rng = np.random.default_rng(0)
    seeds = np.maximum(rng.standard_normal((15_000, dim), dtype=np.float32), 0) ** 1.5
    audio = folder / "audio"
    audio.mkdir(parents=True)
    settings = {"audio_dir": audio, "main_results_dir": folder / "results"}
    loader = bacpipe.Loader(audio, "birdnet", main_results_dir=settings["main_results_dir"])
    loader.claim()
    identity = {
        "model": "birdnet", "sample_rate": 48000, "window": 144000, "checkpoint": {}, "hop": None,
        "padding": "wrap", "speed": 1, "only_annotated": False, "precision": "float32",
        "channel": "mix",
    }  # fmt: skip
    parent = loader.paths.main_embeds_path
    found = create_set(parent, "birdnet", loader.paths.dataset, identity, {})
    journal = RunJournal(found.folder, found.content.recordings)
    counts = np.diff(np.linspace(0, windows, recordings + 1).astype(int))
    for number, count in enumerate(counts.tolist()):
        name = f"site{number % 100:02}/r{number:06}_20250504_{number % 24:02}0000"
        file = EmbeddingFile(found.folder / f"{name}_birdnet.npy")
        for first in range(0, count, 20_000):
            file.append(made_up(min(20_000, count - first), dim, rng, seeds))
        file.stage()
        size, sha256, width = file.commit()
        journal.append(
            FinishedEntry(
                file=f"{name}.wav", status=DONE, size=1, mtime_ns=1, duration=3.0 * count,
                windows=count, padded=0, truncated=None, segments=None, segments_hash=None,
                embeddings=StoredEmbeddings(f"{name}_birdnet.npy", size, width, sha256),
                predictions=None, fingerprint="00" * 8,
            )
        )  # fmt: skip
    journal.close()
    found.reload()
    loader.embedding_set = found
    return loader


def cpu(function: Callable[[], object], repeats: int = 5) -> float:
    """CPU seconds of the process, the best of several."""
    best = np.inf
    for _ in range(repeats):
        started = time.process_time()
        function()
        best = min(best, time.process_time() - started)
    return best


def private_memory() -> float:
    """Private memory of the process in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


class BruteForce:
    """Cosines with all embeddings in float32, a file after the other."""

    def __init__(self, loader: bacpipe.Loader) -> None:
        folder = loader.get_embedding_dir()
        self.rows = [
            np.load(folder / entry.embeddings.path, mmap_mode="c")
            for entry in loader.entries.values()
        ]
        self.rows = [torch.from_numpy(np.asarray(rows)) for rows in self.rows]
        self.norms = [
            torch.cat([part.norm(dim=1) for part in rows.split(20_000)]) for rows in self.rows
        ]

    def find(self, queries: np.ndarray) -> np.ndarray:
        columns = torch.from_numpy(queries.astype(np.float32)).T.contiguous()
        scores, places, first = [], [], 0
        for rows, norms in zip(self.rows, self.norms, strict=True):
            for part, norm in zip(rows.split(16_384), norms.split(16_384), strict=True):
                score, place = torch.topk(
                    (part @ columns) / norm[:, None], min(K, len(part)), dim=0
                )
                scores.append(score)
                places.append(place + first)
                first += len(part)
        best = torch.topk(torch.cat(scores), K, dim=0).indices
        return torch.gather(torch.cat(places), 0, best).T.numpy()


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--recordings", type=int, default=100)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--usearch", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="kept, and used again")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = given.folder or Path(tempfile.mkdtemp())
    if (folder / "audio").is_dir():
        loader = bacpipe.Loader(folder / "audio", "birdnet", main_results_dir=folder / "results")
    else:
        loader = data_set(folder, given.windows, given.dim, given.recordings)
    try:
        measure(loader, given)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def measure(loader: bacpipe.Loader, given: argparse.Namespace) -> None:
    wall, started = time.perf_counter(), time.process_time()
    index = SearchIndex(loader)
    print(
        f"first search: {1e6 * (time.process_time() - started) / index.windows:.1f} µs CPU a "
        f"window, {time.perf_counter() - wall:.1f} s"
    )
    n = index.windows
    rng = np.random.default_rng(1)
    names = [index.names[i] for i in rng.integers(0, len(index.names), given.queries)]
    rows = np.stack(
        [index.embedding(name, int(rng.integers(index.entries[name].windows))) for name in names]
    )
    # Between two windows, so that no query is itself a window.
    rows = 0.7 * rows + 0.3 * np.roll(rows, 1, axis=0)
    queries = Queries(rows / np.linalg.norm(rows, axis=1)[:, None])
    one = Queries(queries.directions[:1])
    brute = BruteForce(loader)
    offsets = dict(
        zip(
            index.names,
            np.cumsum([0, *(entry.windows for entry in index.entries.values())]).tolist(),
            strict=False,
        )
    )

    def ours(what: Queries, **more: object) -> np.ndarray:
        found = index.find(what, K, **more)
        return np.array(
            [
                [offsets[r] + w for r, w in zip(item.recording, item.window, strict=True)]
                for item in found
            ]
        )

    started = time.process_time()
    truth = brute.find(queries.directions)
    once = time.process_time() - started
    before = private_memory()
    found = ours(queries)
    whereabouts = Whereabouts(loader)
    site = {"site": "site07"}
    wanted = wanted_windows(index, whereabouts, site)
    scattered = {name: rng.random(entry.windows) < 0.01 for name, entry in index.entries.items()}
    table = {
        "brute force, 1 query": lambda: brute.find(one.directions),
        "bacpipe, 1 query": lambda: ours(one),
        "brute force, all queries": lambda: brute.find(queries.directions),
        "bacpipe, all queries": lambda: ours(queries),
        "bacpipe, 1 query, one site": lambda: ours(one, wanted=wanted),
        "bacpipe, 1 query, 1 % of windows": lambda: ours(one, wanted=scattered),
        "bacpipe.search, index kept": lambda: bacpipe.search(rows[0], loader=index),
        "bacpipe.search, where site": lambda: bacpipe.search(rows[0], loader=index, where=site),
        "bacpipe.search, new loader": lambda: bacpipe.search(
            rows[0], loader.audio_dir, "birdnet",
            main_results_dir=loader.paths.main_results_dir,
        ),
    }  # fmt: skip
    recalls = {"brute force": 1.0, "bacpipe": recall(found, truth)}
    for _ in range(2):
        ours(queries)
    after = private_memory()
    if given.others:
        table |= others(loader, brute, queries, truth, recalls, given.usearch)
    if given.index:
        table |= approximate(index, ours, queries, truth, recalls)
    best = dict.fromkeys(table, np.inf)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 4 * n * index.dim > memory / 2:
        best["brute force, all queries"] = once
        del best["brute force, 1 query"]
        table = {name: table[name] for name in best if not name.startswith("brute force")}
    for _ in range(4):
        for name, function in table.items():
            best[name] = min(best[name], cpu(function, 1))
    print(f"{n:,} windows × {index.dim}, {len(index.names):,} recordings, {given.queries} queries")
    for name, seconds in best.items():
        print(f"{name:40} {1000 * seconds:9.1f} ms CPU")
    for name, value in recalls.items():
        print(f"recall@{K} of {name}: {value:.4f}")
    print(f"private memory: {before:.0f} MB before the searches, {after:.0f} MB after")


def approximate(
    index: SearchIndex,
    ours: Callable[..., np.ndarray],
    queries: Queries,
    truth: np.ndarray,
    recalls: dict[str, float],
) -> dict[str, Callable[[], object]]:
    """The same by the approximate index."""
    import faiss

    faiss.omp_set_num_threads(1)
    started, before = time.process_time(), private_memory()
    built = build(index)
    path = index.loader.get_embedding_dir() / SEARCH_INDEX
    print(
        f"approximate index: {1e6 * (time.process_time() - started) / index.windows:.1f} µs CPU a "
        f"window, {path.stat().st_size / index.windows:.0f} bytes a window, {built.about}, "
        f"{private_memory() - before:.0f} MB more memory"
    )
    one = Queries(queries.directions[:1])
    recalls["the approximate index"] = recall(ours(queries, by=built.nearest), truth)
    return {
        "approximate, 1 query": lambda: ours(one, by=built.nearest),
        "approximate, all queries": lambda: ours(queries, by=built.nearest),
    }


def others(
    loader: bacpipe.Loader,
    brute: BruteForce,
    queries: Queries,
    truth: np.ndarray,
    recalls: dict[str, float],
    most: int,
) -> dict[str, Callable[[], object]]:
    """The same with indexes of other packages, in memory."""
    table: dict[str, Callable[[], object]] = {}
    directions = queries.directions.astype(np.float32)
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        faiss.omp_set_num_threads(1)
        dim = directions.shape[1]
        index = faiss.IndexScalarQuantizer(
            dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        started = time.process_time()
        trained = False
        for rows, norms in zip(brute.rows, brute.norms, strict=True):
            unit = (rows / norms[:, None]).numpy()
            if not trained:
                index.train(unit)
                trained = True
            index.add(unit)
        print(
            f"faiss SQ8 built: {1e6 * (time.process_time() - started) / index.ntotal:.1f} µs a "
            f"window"
        )
        recalls["faiss SQ8"] = recall(index.search(directions, K)[1], truth)
        table["faiss SQ8, 1 query"] = lambda: index.search(directions[:1], K)
        table["faiss SQ8, all queries"] = lambda: index.search(directions, K)
    if importlib.util.find_spec("usearch") is not None:
        from usearch.index import Index

        lengths = np.cumsum([len(rows) for rows in brute.rows])
        last = int(np.searchsorted(lengths, most)) + 1
        part = torch.cat(brute.rows[:last])[:most].numpy()
        graph = Index(ndim=part.shape[1], metric="cos", dtype="i8")
        started = time.process_time()
        graph.add(np.arange(len(part)), part, threads=1)
        print(
            f"usearch HNSW of {len(part):,} built: "
            f"{1e6 * (time.process_time() - started) / len(part):.1f} µs a window"
        )
        unit = part / np.linalg.norm(part, axis=1)[:, None]
        nearest = np.argsort(-(directions @ unit.T), axis=1)[:, :K]
        keys = np.stack([graph.search(row, K, threads=1).keys for row in directions])
        recalls[f"usearch HNSW of {len(part):,}"] = recall(keys, nearest)
        table[f"usearch, 1 query of {len(part):,}"] = lambda: graph.search(
            directions[0], K, threads=1
        )
    return table


if __name__ == "__main__":
    main()
