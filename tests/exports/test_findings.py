"""What a run says that it has found."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import bacpipe
from bacpipe.__main__ import main
from bacpipe.exports import chosen
from bacpipe.exports.findings import say_findings
from bacpipe.store.verification import verify_results
from tests.conftest import write_recording


def test_a_run_with_nothing_to_do_reads_no_predictions(
    run: Callable[..., bacpipe.Loader], recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = {"classifier_threshold": 0.2}
    said = say_findings(run(**low), None)
    found = bacpipe.detections_table(run(**low))["common_name"].value_counts()
    assert f"tiny: {found.sum()} detections of 2 classes with a score of 0.2 or more" in said
    assert f"quiet {found['quiet']}, loud {found['loud']};" in said
    with monkeypatch.context() as patch:
        patch.setattr(chosen.Chosen, "windows", lambda _: pytest.fail("read again"))
        assert say_findings(run(**low), None) == said
    assert "of 1 class with a score of 0.6" in say_findings(run(classifier_threshold=0.6), None)
    assert f"of 1 class with a score of 0.2 or more: loud {found['loud']};" in say_findings(
        run(**low, species_list="loud"), None
    )
    write_recording(recordings / "new.wav", 4.0, seed=9)
    assert say_findings(run(**low), None) != said
    assert [str(finding) for finding in verify_results(run(**low).paths.dataset_path)] == []


def test_the_hint_of_a_run_that_finds_nothing_goes_on_with_the_same_results(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "my results"
    words = [f"audio_dir={recordings}", f"main_results_dir={results}", "models=birdnet", "hop=2"]
    assert main([*words, "device=cpu", "classifier_threshold=1.0"]) == 0
    hint = capsys.readouterr().out.partition("To see what scores lower, try: ")[2].splitlines()[0]
    assert main(shlex.split(hint.partition("bacpipe ")[2])) == 0
    assert "with a score of 0.25 or more in 5 recordings" in capsys.readouterr().out  # of noise
    assert len(list(results.glob("field/embeddings/*___birdnet-field"))) == 1


def test_the_hint_of_a_run_that_finds_nothing_names_the_same_recordings(
    run: Callable[..., bacpipe.Loader], recordings: Path
) -> None:
    name = sorted(path.relative_to(recordings).as_posix() for path in recordings.rglob("*.wav"))[0]
    table = recordings / "chosen.csv"
    table.write_text(f"file\n{name}\n", encoding="utf-8")
    loader = run(recordings=[name], classifier_threshold=1.0)
    assert f"recordings=[{name}]" in say_findings(loader, None).replace("'", "").replace('"', "")
    settings = {"main_results_dir": loader.paths.main_results_dir, "classifier_threshold": 1.0}
    of_table = bacpipe.Loader(table, "tiny", **settings)
    assert f"audio_dir={table}" in say_findings(of_table, None)
