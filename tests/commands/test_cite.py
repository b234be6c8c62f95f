"""What a paper should say of results."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bacpipe.__main__ import main
from bacpipe.models.zoo import CARDS

TREE = Path(__file__).parents[1] / "data" / "results_2_0"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A data set with embeddings of an own model, and the same again under a zoo model's name."""
    shutil.copytree(TREE, tmp_path / "results")
    folder = tmp_path / "results/recordings/embeddings"
    own = next(folder.iterdir())
    other = shutil.copytree(own, folder / own.name.replace("tiny", "batdetect2_clip_avg"))
    header, *lines = (other / "journal.jsonl").read_text().splitlines()
    fields = json.loads(header)
    fields["identity"] |= {
        "model": "batdetect2_clip_avg", "hop": 0.05, "precision": "bfloat16", "speed": 0.1,
        "padding": "constant", "channel": "left",
    }  # fmt: skip
    (other / "journal.jsonl").write_text("\n".join([json.dumps(fields), *lines]) + "\n")
    return tmp_path / "results"


def test_methods_and_papers_come_from_the_results(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cite", str(results)]) == 0
    said = capsys.readouterr().out
    assert "embeddings of 3 recordings (0.001528 hours) with the model tiny," in said
    assert "model batdetect2_clip_avg (Mac Aodha et al. 2022), using bacpipe 2.0.0" in said
    assert "windows of 1 s, which do not overlap, one every 1 s" in said
    # Times are those of the recordings, however they were played.
    assert "played at 0.1 times their speed, resampled to 8000 Hz and cut into windows of" in said
    assert "windows of 0.1 s of the recording, one every 0.05 s; the last window" in said
    assert "was filled with silence. Of recordings with several channels, the first" in said
    assert "computed in bfloat16" in said
    assert "score of at least 0.8 were kept" in said
    assert "batdetect2_clip_avg are under CC BY-NC 4.0: no commercial use" in said
    assert "tiny is no model of bacpipe's: cite its authors, too" in said
    assert "@article{macaodha2022," in said and "doi = {10.1101/2022.12.14.520490}" in said
    page = (Path(__file__).parents[2] / "docs/citing.md").read_text("utf-8")
    (entry,) = re.findall(r"```bibtex\n(.*?\n)```", page, re.S)
    assert f"{entry}\n" in said


def test_folders_without_results_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cite", str(tmp_path)]) == 1
    assert "no finished embeddings" in capsys.readouterr().err
    assert main(["cite", str(tmp_path / "gone")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_every_paper_has_a_doi() -> None:
    papers = {paper for card in CARDS.values() for paper in card.papers}
    assert all(card.papers for card in CARDS.values())
    assert all(paper.doi.startswith("10.") for paper in papers)
    assert len({paper.doi for paper in papers}) == len(papers)
