"""Mistakes of people, and of what they bring along, and the sentences that they get."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bacpipe
from bacpipe.__main__ import main
from bacpipe.errors import BacpipeError, RecordingsFailedError, ReductionError, SettingsError
from bacpipe.evaluation.clustering import run_clustering
from bacpipe.options import KEYS, make_options
from bacpipe.reduction import reducers
from tests.conftest import TinyModel, write_recording


class MuteError(Exception):
    """Raises when it is asked what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "field"
    for number in range(2):
        write_recording(folder / f"r{number}.wav", 6.0, seed=number)
    return folder


def run(recordings: Path, model: Any, **settings: Any) -> Any:
    chosen = {"bootstrap_samples": 0, "device": "cpu", "classifier_threshold": 0.0, **settings}
    return bacpipe.play(
        audio_dir=recordings,
        main_results_dir=recordings.parent / "results",
        models=["tiny"],
        CustomModels=[model],
        **chosen,
    )["tiny"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: bacpipe.play("recordings", models="birdnet"), "mean audio_dir='recordings'"),
        (lambda: bacpipe.play(Path("my data")), "mean audio_dir='my data'"),
        (lambda: bacpipe.play(1), "expected True or False"),
        (lambda: bacpipe.generate_embeddings("x", model_name="birdnet"), "\\(audio_dir='x'"),
    ],
)
def test_a_folder_as_the_first_argument(call: Callable[[], object], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        call()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("stride", "hop"),
        ("min_conf", "classifier_threshold"),
        ("min-conf", "classifier_threshold"),
        ("confidence", "classifier_threshold"),
        ("Threshold", "classifier_threshold"),
        ("lat", "latitude"),
        ("lon", "longitude"),
        ("slist", "species_list"),
        ("species_list", "species_list"),
        ("threads", "nr_parallel_workers"),
        ("batchsize", "global_batch_size"),
        ("output", "main_results_dir"),
        ("annotation_overlp", "annotation_overlap"),
    ],
)
def test_keys_of_other_programs_lead_to_ours(
    key: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {*KEYS["config"], *KEYS["settings"]}
    if key in known:
        pytest.skip("this is a key of ours by now")
    assert main([f"{key}=0.5"]) == 2
    said = capsys.readouterr().err
    assert f"no key {key!r}" in said
    assert (f"did you mean {meant!r}" in said) is (meant in known)
    assert "did you mean 'split'" not in said


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("padding", "zeros", "constant"),
        ("padding", "Reflection", "reflect"),
        ("device", "CPU", "cpu"),
        ("device", "GPU", "cuda"),
        ("channel", "mono", "mix"),
        ("channel", 0, "left"),
        ("channel", "Loudest", "loudest"),
        ("precision", "fp16", "bfloat16"),
        ("dim_reduction_model", "TSNE", "t_sne"),
    ],
)
def test_values_of_other_programs_lead_to_ours(key: str, value: object, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"Did you mean '{meant}'"):
        make_options(**{key: value})


@pytest.mark.parametrize(
    "classes",
    [np.array(["a", "b"]), pd.Series(["a", "b"], index=[5, 7]), ("a", "b"), np.array([1, 2])],
)
def test_class_names_may_come_as_any_sequence(recordings: Path, classes: Any) -> None:
    class Own(TinyModel):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.classes = classes

        def classifier_predictions(self, embeddings: Any) -> Any:
            return torch.linspace(0.9, 0.8, 2).repeat(len(embeddings), 1)

    _, names = run(recordings, Own).predictions("array")
    assert [*names.values()] == [str(name) for name in classes]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["a", "b", "a"], "'a' 2 times"),
        (np.array([["a", "b"]]), "at place 0"),
        (["a", float("nan")], "nan at place 1"),
        (["", "b"], "'' at place 0"),
        ("ab", "is a str"),
        ({"a": 0}, "is a dict"),
        ({"a"}, "is a set"),
        ((name for name in "ab"), "is a generator"),
    ],
)
def test_impossible_class_names_get_a_sentence(
    recordings: Path, classes: Any, expected: str
) -> None:
    class Own(TinyModel):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.classes = classes

    with pytest.raises(SettingsError, match=rf"^Own: classes .*{expected}"):
        run(recordings, Own)


@pytest.mark.parametrize("where", ["__init__", "preprocess", "__call__", "classifier_predictions"])
def test_errors_that_cannot_say_what_they_are(recordings: Path, where: str) -> None:
    class Own(TinyModel):
        pass

    def fail(*_: Any, **__: Any) -> Any:
        raise MuteError

    setattr(Own, where, fail)
    with pytest.raises(BacpipeError, match=r"^Own: this model .*MuteError"):
        run(recordings, Own)


def test_a_model_that_cannot_be_made_leaves_the_others_alone(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class NeedsMore(TinyModel):
        def __init__(self, weights: str) -> None:
            super().__init__()

    with pytest.raises(BacpipeError, match=r"NeedsMore: this model cannot be constructed.*weights"):
        bacpipe.play(
            audio_dir=recordings,
            main_results_dir=recordings.parent / "results",
            models=["more", "tiny"],
            CustomModels=[NeedsMore, TinyModel],
        )
    assert "recordings done       2" in capsys.readouterr().out


@pytest.mark.parametrize("reducer", ["pca", "umap"])
@pytest.mark.parametrize("scale", [1e-40, 1e30, 1e38])
def test_embeddings_beyond_all_measure_get_no_map(reducer: str, scale: float) -> None:
    rng = np.random.default_rng(1)
    embeds = (rng.uniform(0.1, 1, (20, 4)) * scale).astype(np.float32)
    with pytest.raises(ReductionError, match=r"the largest value is .* scale the embeddings"):
        reducers.fit(reducer, embeds)
    with pytest.raises(BacpipeError, match="the largest value is"):
        run_clustering(embeds, {"kmeans": {"n_clusters": 2}})


def test_a_map_is_made_of_all_but_silence(recordings: Path) -> None:
    class Quiet(TinyModel):
        def __call__(self, x: Any) -> Any:
            made = super().__call__(x)
            return torch.cat([made[:1] * 1e-30, made[1:]])

    run(recordings, Quiet, dim_reduction_model="pca")
    table = bacpipe.Loader(
        recordings, "tiny", dim_reduction_model="pca",
        main_results_dir=recordings.parent / "results",
    ).embeddings("array")  # fmt: skip
    assert np.isfinite(table).all()


@pytest.mark.parametrize("rows", ["r0.wav,1,2,wren\n", "r0.wav,0,6,wren\n"])
def test_one_label_in_one_recording_and_clustering(recordings: Path, rows: str) -> None:
    text = f"audiofilename,start,end,label:species\n{rows}"
    (recordings / "annotations.csv").write_text(text)
    with pytest.raises(BacpipeError) as raised:
        run(recordings, TinyModel, evaluation_task=["clustering"])
    said = str(raised.value)
    assert "found 1 label in 1 recording)" in said
    assert "comparison of models" not in said
    assert ".;" not in said


def test_what_fails_is_printed_once(
    recordings: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (recordings / "broken.wav").write_text("no audio")
    with caplog.at_level(logging.INFO, "bacpipe"):
        run(recordings, TinyModel)
    printed = capsys.readouterr()
    told = printed.out + printed.err + caplog.text
    assert told.count("broken.wav: is not audio") == 1
    assert "1 of 3" not in told


@pytest.mark.parametrize(("strict", "code"), [("true", 3), ("false", 0)])
def test_failed_recordings_have_an_exit_code_of_their_own_when_asked(
    recordings: Path, strict: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "broken.wav").write_text("no audio")
    words = [f"audio_dir={recordings}", f"main_results_dir={recordings.parent / 'out'}"]
    for _ in range(2):  # also when there is nothing left to do
        assert main([*words, f"strict={strict}", "models=birdnet"]) == code
    said = capsys.readouterr()
    assert ("1 recording failed" in said.err) is (strict == "true")


def test_strict_holds_for_every_way_to_run(recordings: Path) -> None:
    (recordings / "broken.wav").write_text("no audio")
    settings: dict[str, Any] = {
        "audio_dir": recordings, "main_results_dir": recordings.parent / "out", "device": "cpu",
        "CustomModel": TinyModel, "strict": True,
    }  # fmt: skip
    for run_it in (
        lambda: bacpipe.generate_embeddings(model_name="tiny", **settings),
        lambda: bacpipe.run_pipeline_for_single_model("tiny", **settings),
        lambda: bacpipe.run_pipeline_for_models(["tiny"], **settings),
    ):
        with pytest.raises(RecordingsFailedError, match="1 recording failed; all else is done"):
            run_it()
    loader = bacpipe.Loader(recordings, "tiny", main_results_dir=recordings.parent / "out")
    assert len(loader.entries) == len([*recordings.rglob("*.wav")]) - 1


LEARNING = ("review_plan", "suggest", "train_recogniser")
LABELS = ("people_labels", "label_agreement", "metadata_labels", "ground_truth_by_model")
ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"audio_dir": value})
      for name in (*LABELS, *LEARNING, "calibrate", "get_audio_files")
      for value in (None, 5, b"field", [5])),
    *((name, {"model": ["tiny"]}) for name in ("search", *LABELS[2:])),
    *((name, {"seed": v}) for name in LEARNING for v in (-1, "x", 1.5, True, np.zeros(2))),
    *((name, {"classes": value}) for name in LEARNING for value in (5, [5])),
    *(("search", {key: value}) for key, value in (
        ("where", 5), ("where", "site=north"), ("min_gap", "x"), ("min_gap", -1), ("k", 0))),
    *(("train_recogniser", {"name": value}) for value in (None, 5, ["a"], "a/b")),
]  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a data set with results and labels of people."""
    folder = tmp_path_factory.mktemp("taught")
    where = {"audio_dir": folder / "field", "main_results_dir": folder / "results"}
    for number in range(2):
        write_recording(folder / "field" / f"r{number}.wav", 6.0, seed=number)
    bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, device="cpu", classifier_threshold=0.0, **where
    )
    rows = [
        (f"r{i % 2}.wav", i // 2, i // 2 + 1, "owl", "yes" if i % 3 else "no") for i in range(8)
    ]
    columns = ["recording", "start", "end", "label", "value"]
    bacpipe.label_windows(rows=pd.DataFrame(rows, columns=columns), **where)
    bacpipe.train_recogniser(model="tiny", name="owls", **where)
    return where


@pytest.mark.parametrize(("name", "wrong"), ARGUMENTS, ids=str)
def test_arguments_of_another_kind_get_a_sentence(
    name: str, wrong: dict[str, Any], taught: dict[str, Any]
) -> None:
    given: dict[str, Any] = {
        **{key: {"model_or_recogniser": "owls"} for key in ("review_plan", "calibrate")},
        "suggest": {"recogniser": "owls"}, "search": {"query": ("r0.wav", 1.0), "model": "tiny"},
        "train_recogniser": {"model": "tiny", "name": "mine"}, "metadata_labels": {"model": "tiny"},
        "ground_truth_by_model": {"model": "tiny"},
    }.get(name, {})  # fmt: skip
    where = {} if name == "get_audio_files" else taught
    with pytest.raises(BacpipeError) as caught:
        getattr(bacpipe, name)(**{**where, **given, **wrong})
    sentence = str(caught.value)
    (key,) = wrong
    assert (
        f"{key}={wrong[key]!r}" in sentence
        or f"{key} is missing" in sentence
        or (name == "get_audio_files" and repr(wrong[key]) in sentence)
    )
