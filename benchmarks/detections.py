"""Ten million detections: what it costs to filter, group and export them, and with how much memory.

Recordings of ten minutes in windows of a second, each with ten species whose detections are
scattered over it; results of a model that does not exist, written by the store's own writers.  Each
row is a process of its own.  "MiB more" is what memory grows by at most, the answer included; what
is read through mapped files is not counted.  Up to 3.5 GB of disk, removed afterwards.

    python benchmarks/detections.py                        # 20 000 recordings with 500 each
    python benchmarks/detections.py --recordings 2000      # a tenth: what grows with the survey?
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from steps import in_a_process, watched
from trees import no_sync, write_described_tables, write_results

import bacpipe
from bacpipe.store.layout import detections_path
from bacpipe.store.predictions import SparsePredictions

MODEL, WINDOWS, EACH, SPECIES, HEARD = "listener", 600, 500, 200, 10
SITES = 50
CLASSES = tuple(f"bird {i:03}" for i in range(SPECIES))
SURE = 0.9  # the filter's score, which 0.3 % of the detections reach


def write_recordings(folder: Path, count: int) -> None:
    """Write files that a list of recordings takes for audio, a site's days one after the other."""
    for number in range(count):
        site, turn = number % SITES, number // SITES
        day = date(2024, 3, 1) + timedelta(days=turn // 24)
        path = folder / f"site{site:02}" / f"{day:%Y%m%d}_{turn % 24:02}0000.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF")
    kinds = ("forest", "meadow")
    rows = [f"site{i:02},{52 + i / 100},13.4,{kinds[i % 2]}" for i in range(SITES)]
    header = "site,latitude,longitude,habitat"
    (folder / "sites.csv").write_text("\n".join([header, *rows, ""]))


def draw(rng: np.random.Generator) -> SparsePredictions:
    """Detections of a recording: no window holds a species twice."""
    cell = np.sort(rng.choice(WINDOWS * HEARD, EACH, replace=False))
    species = rng.choice(SPECIES, HEARD, replace=False)
    score = 0.1 + 0.9 * rng.beta(0.7, 2.4, EACH)
    window, label = cell // HEARD, species[cell % HEARD]
    order = np.lexsort((-score, window))
    columns = zip((window, label, score), (np.int32, np.int32, np.float32), strict=True)
    return SparsePredictions(*(column[order].astype(kind) for column, kind in columns))


def make(folder: Path, count: int) -> dict[str, float]:
    write_recordings(folder / "audio", count)
    identity = {"model": MODEL, "sample_rate": 8000, "window": 8000, "checkpoint": "none"}
    loader = write_results(
        folder / "audio", folder / "results", MODEL, windows=WINDOWS, dim=2, identity=identity,
        classes=CLASSES, draw=draw, classifier_threshold=0.1,
    )  # fmt: skip
    cost = watched(lambda: write_described_tables(loader))
    path = detections_path(loader.paths.preds_path, MODEL)
    assert pq.read_metadata(path).num_rows == count * EACH, "fewer detections than drawn are stored"
    return cost


def filtered(folder: Path) -> int:
    """Count by species what a filter of pyarrow.dataset leaves of the Parquet file."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    path = next((folder / "results").rglob(f"{MODEL}_detections.parquet"))
    sure = ds.dataset(path).to_table(["site", "common_name"], filter=pc.field("score") >= SURE)
    return sure.group_by(["site", "common_name"]).aggregate([("site", "count")]).num_rows


def steps(loader: bacpipe.Loader, folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by its name."""
    out = folder / "exported"
    table, survey = bacpipe.detections_table, bacpipe.survey_table

    def export(name: str, **options: object) -> Callable[[], object]:
        return lambda: bacpipe.export(loader, name, out, **options)

    return {
        f"detections_table, score >= {SURE}": lambda: table(loader, classifier_threshold=SURE),
        "detections_table, all": lambda: table(loader),
        "Parquet filtered by pyarrow.dataset, and counted": lambda: filtered(folder),
        "survey_table by site and date": lambda: survey(loader, min_score=0.5),
        "survey_table by habitat and hour": lambda: survey(loader, by=("habitat", "hour")),
        "detection_history of a species": lambda: bacpipe.detection_history(loader, CLASSES[0]),
        "export csv": export("csv"),
        "export survey": export("survey"),
        "export occupancy, all species": export("occupancy"),
    }


def measure(folder: Path, step: str) -> dict[str, float]:
    loader = bacpipe.Loader(folder / "audio", MODEL, main_results_dir=str(folder / "results"))
    # Libraries are no part of it, nor the list of recordings that every reader has.
    next(iter(loader.detections()))
    for library in ("pandas", "pyarrow.compute", "pyarrow.csv", "pyarrow.dataset"):
        importlib.import_module(library)
    with no_sync():
        return watched(steps(loader, folder)[step])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--only", nargs="*", default=[""], help="words of the rows to measure")
    parser.add_argument("--folder", type=Path, help="keep what is made here, for a further time")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        if arguments.step == "make":
            print(json.dumps(make(arguments.folder, arguments.recordings)))
        else:
            print(json.dumps(measure(arguments.folder, arguments.step)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="detections"))
    try:
        print(f"| {arguments.recordings * EACH:,} detections | CPU s | wall s | MiB more |")
        print("|---|---|---|---|")
        rows = list(steps(None, folder))  # type: ignore[arg-type]
        chosen = [row for row in rows if any(word in row for word in arguments.only)]
        if not (folder / "made").exists():
            made = in_a_process(__file__, "make", folder, "--recordings", str(arguments.recordings))
            say("tables at the end of a run", made)
            (folder / "made").touch()
        for row in chosen:
            say(row, in_a_process(__file__, row, folder))
            shutil.rmtree(folder / "exported", ignore_errors=True)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"\n{size / 1e9:.1f} GB on the disk, of which the Parquet file ", end="")
        found = next(folder.rglob(detections_path(Path(), MODEL).name))
        print(f"{found.stat().st_size / 1e6:.0f} MB")
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def say(row: str, cost: dict[str, float]) -> None:
    print(f"| {row} | {cost['cpu']:.1f} | {cost['wall']:.1f} | {cost['memory']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
