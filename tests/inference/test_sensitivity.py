"""``sensitivity`` of BirdNET, and ``overlap`` in terms of a model's window."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bacpipe
from bacpipe.embedder import Embedder
from bacpipe.errors import SettingsError
from bacpipe.evaluation.benchmark import class_scores
from bacpipe.inference.runner import shifted
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]


@pytest.mark.parametrize("sensitivity", [0.5, 0.8, 1.25, 1.5])
def test_scores_are_those_of_the_published_formula(sensitivity: float) -> None:
    logits = np.linspace(-12, 12, 97)
    expected = 1 / (1 + np.exp(-np.clip(logits + 10 * (sensitivity - 1), -20, 20)))
    scores = torch.sigmoid(torch.tensor(logits, dtype=torch.float32))
    found = shifted(scores, sensitivity)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(np.asarray(found), expected, atol=2e-4, rtol=2e-3)
    ends = np.asarray(shifted(torch.tensor([0.0, 1.0]), sensitivity))
    assert ends.tolist() == pytest.approx([0, 1], abs=1e-8)
    assert shifted(scores, 1) is scores


@pytest.fixture
def run_birdnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A model with BirdNET's name, so that nothing is loaded."""

    class TinyBirdNet(TinyModel):
        windows_seen = 0

        def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
            level = embeddings.mean(dim=1).clamp(0.01, 0.99)
            return torch.stack([level, 1 - level], dim=1)

    for seed, name in enumerate(("a.wav", "b.wav")):
        write_recording(tmp_path / "card" / name, 3.0, seed=seed)

    def run(**settings: object) -> bacpipe.Loader:
        return bacpipe.generate_embeddings(
            **{
                "audio_dir": tmp_path / "card",
                "model_name": "birdnet",
                "CustomModel": TinyBirdNet,
                "main_results_dir": tmp_path / "results",
                "device": "cpu",
                "classifier_threshold": 0.0,
                **settings,
            }
        )

    run.model = TinyBirdNet  # type: ignore[attr-defined]
    return run


def scores(loader: bacpipe.Loader) -> pd.DataFrame:
    return loader.predictions("dataframe").set_index(["audiofilename", "start", "end"])


def test_a_benchmark_scores_with_the_sensitivity_that_is_asked_for(run_birdnet: Run) -> None:
    loader = run_birdnet()
    found = [
        class_scores(
            Embedder("birdnet", loader, CustomModel=run_birdnet.model, sensitivity=value),
            loader,
            [0],
        )
        for value in (1.0, 1.5, 1.0)
    ]
    np.testing.assert_allclose(found[1], shifted(torch.tensor(found[0]), 1.5), atol=1e-5)
    np.testing.assert_array_equal(found[2], found[0])


def test_another_sensitivity_makes_all_scores_anew_and_says_so(
    run_birdnet: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = scores(run_birdnet())
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        loader = run_birdnet(sensitivity=1.3)
    assert "2 recordings are made anew with sensitivity=1.3 instead of 1" in caplog.text
    found = scores(loader)
    expected = 1 / (1 + np.exp(-(np.log(plain / (1 - plain)) + 3)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert loader.predictions_provenance["sensitivity"] == 1.3
    model = run_birdnet.model  # type: ignore[attr-defined]
    assert model.windows_seen == 6  # the embeddings stay
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        kept = scores(run_birdnet())  # who does not ask, keeps what is stored
    assert "and sensitivity=1.3" in caplog.text
    pd.testing.assert_frame_equal(kept, found)
    with pytest.raises(SettingsError, match=r"1 other would keep sensitivity=1\.3"):
        run_birdnet(sensitivity=1.0, recordings="a.wav")
    pd.testing.assert_frame_equal(scores(run_birdnet(sensitivity=1.0)), plain)
    assert verify_results(tmp_path / "results") == []


def test_models_without_sensitivity_say_so(
    tmp_path: Path, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    write_recording(tmp_path / "card" / "a.wav", 2.0)
    loader = bacpipe.generate_embeddings(
        audio_dir=tmp_path / "card",
        model_name="tiny",
        CustomModel=tiny_model,
        main_results_dir=tmp_path / "results",
        sensitivity=1.2,
    )
    assert "tiny has no sensitivity" in caplog.text
    assert "sensitivity" not in loader.predictions_provenance
    with pytest.raises(SettingsError, match=r"from 0\.5 to 1\.5"):
        bacpipe.Loader(tmp_path / "card", "birdnet", sensitivity=2)


def test_overlap_is_the_window_less_the_hop(run_birdnet: Run, tmp_path: Path) -> None:
    card = tmp_path / "card"
    assert bacpipe.Loader(card, "birdnet", overlap=0.1).options.hop == 2.9
    slow = bacpipe.Loader(card, "birdnet", overlap=10, bool_change_speed=True, new_speed=10)
    assert slow.options.hop == 20
    with pytest.raises(SettingsError, match="not as long as those of birdnet"):
        run_birdnet(overlap=2.5)
    found = run_birdnet(hop=0.5)
    assert found.embedding_set is not None and found.embedding_set.identity is not None
    assert found.embedding_set.identity["hop"] == 0.5
    again = bacpipe.Loader(card, "birdnet", overlap=2.5, main_results_dir=tmp_path / "results")
    assert again.embed_dir == found.embed_dir
    for settings, sentence in (
        ({"overlap": 3}, "birdnet, whose windows are 3 s long; expected less"),
        ({"overlap": 1, "hop": 1}, "say the same in two ways"),
        ({"overlap": -1}, "number from 0"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            bacpipe.Loader(card, "birdnet", **settings)
    with pytest.raises(SettingsError, match="expected hop"):
        bacpipe.Loader(card, "mine", overlap=1)


def test_a_calibration_of_another_sensitivity_is_left_aside(
    run_birdnet: Run, caplog: pytest.LogCaptureFixture
) -> None:
    loader = run_birdnet()
    where = {"audio_dir": loader.audio_dir, "main_results_dir": loader.paths.main_results_dir}
    table = bacpipe.detections_table(loader)
    rows = table.rename(columns={"common_name": "label"})[["recording", "start", "end", "label"]]
    bacpipe.calibrate(
        where["audio_dir"], "birdnet", rows.assign(value=["yes", "no"] * (len(rows) // 2)),
        main_results_dir=where["main_results_dir"],
    )  # fmt: skip
    assert bacpipe.detections_table(loader)["probability"].notna().any()
    caplog.clear()
    assert bacpipe.detections_table(run_birdnet(sensitivity=1.2))["probability"].isna().all()
    assert "other weights or another sensitivity" in caplog.text
