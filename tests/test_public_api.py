"""The promised API: names, parameters, defaults and return types.

``tests/data/public_api.json`` holds the promise in short: for every name its positional
parameters, ``[name, default]`` where there is a default, and ``**kwargs``.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import operator
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bacpipe
from bacpipe.options import Options
from tests.conftest import TinyModel, write_recording

_PROMISE = json.loads((Path(__file__).parent / "data" / "public_api.json").read_text())
# The reference shows what these defaults amount to; here, None stands for the user's settings.
_FROM_SETTINGS = {"audio_suffixes"}


@pytest.mark.parametrize("name", _PROMISE["signatures"])
def test_parameters_and_defaults(name: str) -> None:
    found = inspect.signature(operator.attrgetter(name)(bacpipe)).parameters
    parameters = [p for p in found.values() if p.name != "self"]
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    promised = _PROMISE["signatures"][name]
    has_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
    assert has_rest or "**kwargs" not in promised
    wanted = [item for item in promised if item != "**kwargs"]
    names = [item if isinstance(item, str) else item[0] for item in wanted]
    # Whatever we add is keyword-only, so that no call of the promised kind changes its meaning.
    assert [p.name for p in positional] == names
    for parameter, item in zip(positional, wanted, strict=True):
        if isinstance(item, str) or parameter.name in _FROM_SETTINGS:
            continue
        default = parameter.default
        assert (list(default) if default == () else default) == item[1], parameter.name


@pytest.mark.parametrize("name", _PROMISE["constants"])
def test_constants(name: str) -> None:
    kind = dict if name == "EMBEDDING_DIMENSIONS" else list
    assert isinstance(getattr(bacpipe, name), kind)
    assert set(getattr(bacpipe, name)) <= set(bacpipe.supported_models)
    assert getattr(bacpipe, name)


def _documented(name: str) -> list[tuple[str, Any]]:
    value = getattr(bacpipe, name)
    if not inspect.isclass(value):
        return [(name, value)] if callable(value) else []
    methods = inspect.getmembers(value, inspect.isfunction)
    return [(f"{name}.{key}", function) for key, function in methods if not key.startswith("_")]


def test_settings_that_functions_take_are_named() -> None:
    """Where any key may be given, the docstring says which ones matter, and they are keys."""
    keys = {field.name for field in dataclasses.fields(Options)}
    taking = [
        (name, function)
        for public in bacpipe.__all__
        for name, function in _documented(public)
        if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
    ]
    assert len(taking) > 30
    for name, function in taking:
        entry = re.search(
            r"\n(?:[\w, ]+, )?\*\*\w+\n((?: +.*\n?)+)", inspect.getdoc(function) or ""
        )
        assert entry, name
        if "configuration" in entry[1] or "``bacpipe.config``" in entry[1]:
            assert keys & {*re.findall(r"\w+", entry[1])}, f"{name} names no key"


def test_every_public_name_exists() -> None:
    for name in bacpipe.__all__:
        assert getattr(bacpipe, name) is not None
    assert set(bacpipe.__all__) <= set(dir(bacpipe))


class Setting(SimpleNamespace):
    """A small data set with all results, and what functions are called with."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    base = tmp_path_factory.mktemp("api")
    audio = base / "field"
    rows = ["audiofilename,start,end,label:species"]
    for number in range(6):
        name = f"site_2024060{number + 1}_051500.wav"
        write_recording(audio / name, 8.0, seed=number)
        rows += [f"{name},0,3,loud", f"{name},4,7,quiet"]
    (audio / "annotations.csv").write_text("\n".join(rows))
    settings = {
        "audio_dir": audio,
        "main_results_dir": base / "results",
        "device": "cpu",
        "bootstrap_samples": 0,
        "classifier_threshold": 0.3,
    }
    loaders = bacpipe.play(
        **settings,
        models=["tiny"],
        CustomModels=[TinyModel],
        dim_reduction_model="pca",
        evaluation_task=["probing", "clustering"],
    )
    loader = loaders["tiny"]
    return Setting(
        settings=settings,
        loaders=loaders,
        loader=loader,
        audio=audio,
        recording=audio / "site_20240601_051500.wav",
        embeds=loader.embeddings("array"),
        truth=bacpipe.ground_truth_by_model("tiny", overwrite=False, **settings),
        embedder=bacpipe.Embedder("tiny", CustomModel=TinyModel, device="cpu"),
    )


def _clusters(s: Setting) -> dict[str, np.ndarray]:
    return bacpipe.run_clustering(s.embeds, {"kmeans": {"n_clusters": 2}})


_CALLS: dict[str, tuple[Callable[[Setting], Any], Any]] = {
    "play": (lambda s: s.loaders, dict),
    "Loader": (lambda s: s.loader, bacpipe.Loader),
    "Loader.embeddings": (lambda s: s.loader.embeddings(), dict),
    "Loader.embeddings array": (lambda s: s.embeds, np.ndarray),
    "Loader.predictions": (lambda s: s.loader.predictions(), tuple),
    "Loader.predictions array": (lambda s: s.loader.predictions("array"), tuple),
    "Loader.predictions dataframe": (lambda s: s.loader.predictions("dataframe"), pd.DataFrame),
    "Loader.get_preds_array": (lambda s: s.loader.get_preds_array(), tuple),
    "Loader.get_annotations_parquet": (
        lambda s: s.loader.get_annotations_parquet(),
        pd.DataFrame,
    ),
    "Loader.get_audio_files": (lambda s: bacpipe.Loader.get_audio_files(s.audio), list),
    "Loader.classifier_should_be_run": (
        lambda s: s.loader.classifier_should_be_run(s.loader.paths, True, False),
        bool,
    ),
    "Loader.get_embedding_dir": (lambda s: s.loader.get_embedding_dir(), Path),
    "Loader.read_embedding_file": (
        lambda s: s.loader.read_embedding_file(s.recording),
        np.ndarray,
    ),
    "Loader.update_files": (lambda s: s.loader.update_files(), list),
    "Loader.write_metadata_file": (lambda s: s.loader.write_metadata_file(), Path),
    "Loader.metadata_dict": (lambda s: s.loader.metadata_dict, dict),
    "Embedder.prepare_audio": (lambda s: s.embedder.prepare_audio(s.recording), torch.Tensor),
    "Embedder.get_embeddings_for_audio": (
        lambda s: s.embedder.get_embeddings_for_audio(s.embedder.prepare_audio(s.recording)),
        np.ndarray,
    ),
    "Embedder.get_embeddings_from_model": (
        lambda s: s.embedder.get_embeddings_from_model(s.recording),
        np.ndarray,
    ),
    "Embedder.embeddings_using_multithreading": (
        lambda s: s.embedder.embeddings_using_multithreading(
            [np.zeros(8000, np.float32), np.ones(16000, np.float32)]
        ),
        np.ndarray,
    ),
    "Embedder.get_reduced_dimensionality_embeddings": (
        lambda s: bacpipe.Embedder(
            "tiny", dim_reduction_model="pca", device="cpu"
        ).get_reduced_dimensionality_embeddings(s.embeds),
        np.ndarray,
    ),
    "run_pipeline_for_single_model": (
        lambda s: bacpipe.run_pipeline_for_single_model(
            "tiny", CustomModel=TinyModel, **s.settings
        ),
        bacpipe.Loader,
    ),
    "run_pipeline_for_models": (
        lambda s: bacpipe.run_pipeline_for_models(
            ["tiny"], dim_reduction_model="None", CustomModels=[TinyModel], **s.settings
        ),
        dict,
    ),
    "generate_embeddings": (
        lambda s: bacpipe.generate_embeddings(
            model_name="tiny", CustomModel=TinyModel, **s.settings
        ),
        bacpipe.Loader,
    ),
    "get_audio_files": (lambda s: bacpipe.get_audio_files(s.audio, return_type="str"), list),
    "create_default_labels": (
        lambda s: bacpipe.create_default_labels(model="tiny", **s.settings),
        dict,
    ),
    "get_default_labels": (lambda s: bacpipe.get_default_labels("tiny", **s.settings), dict),
    "ground_truth_by_model": (lambda s: s.truth, dict),
    "get_dt_filename": (lambda s: bacpipe.get_dt_filename(s.recording.name), datetime),
    "probing_pipeline": (
        lambda s: bacpipe.probing_pipeline("tiny", s.truth, s.embeds, s.loader.paths, **s.settings),
        tuple,
    ),
    "prepare_probe_inference": (
        lambda s: bacpipe.prepare_probe_inference("tiny", s.loader.paths.probe_path),
        tuple,
    ),
    "run_probe_inference": (
        lambda s: bacpipe.run_probe_inference(
            "tiny",
            bacpipe.prepare_probe_inference("tiny", s.loader.paths.probe_path)[0],
            0.5,
            s.embeds,
        ),
        np.ndarray,
    ),
    "clustering_pipeline": (
        lambda s: bacpipe.clustering_pipeline(
            "tiny", s.truth, s.embeds, s.loader.paths, **s.settings
        ),
        dict,
    ),
    "run_clustering": (_clusters, dict),
    "eval_clustering": (
        lambda s: bacpipe.eval_clustering(_clusters(s), s.truth["label:species"]),
        dict,
    ),
    "eval_with_silhouette": (
        lambda s: bacpipe.eval_with_silhouette(s.embeds, s.truth["label:species"]),
        dict,
    ),
    "evaluation_with_settings_already_exists": (
        lambda s: bacpipe.evaluation_with_settings_already_exists(
            s.audio, "None", ["birdnet"], main_results_dir=s.settings["main_results_dir"]
        ),
        bool,
    ),
    "get_model_names": (
        lambda s: bacpipe.get_model_names(
            ["birdnet"], s.audio, s.settings["main_results_dir"], "embeddings", True
        ),
        list,
    ),
    "ensure_models_exist": (
        lambda s: bacpipe.ensure_models_exist(s.settings["main_results_dir"], "birdnet"),
        str,
    ),
    "benchmark": (
        lambda s: bacpipe.benchmark(
            "tiny",
            s.audio,
            CustomModel=TinyModel,
            **{key: value for key, value in s.settings.items() if key != "audio_dir"},
        ),
        dict,
    ),
    "DefaultLabels": (
        lambda s: bacpipe.DefaultLabels(s.loader.paths, "tiny", ["time_of_day"]).generate(),
        dict,
    ),
    "Embedder.batch_inference": (
        lambda s: s.embedder.batch_inference(
            s.embedder.init_dataloader(s.embedder.prepare_audio(s.recording))
        ),
        np.ndarray,
    ),
    "make_set_paths_func": (lambda s: bacpipe.make_set_paths_func(s.audio), Callable),
}


@pytest.mark.parametrize("name", _CALLS)
def test_return_types(name: str, done: Setting) -> None:
    call, kind = _CALLS[name]
    assert isinstance(call(done), kind)


def test_paths_have_the_promised_attributes(done: Setting) -> None:
    paths = bacpipe.make_set_paths_func(done.audio)("tiny")
    for name in (
        "audio_dir",
        "main_results_dir",
        "dataset_path",
        "main_embeds_path",
        "dim_reduc_parent_dir",
        "labels_path",
        "clust_path",
        "probe_path",
        "preds_path",
        "plot_path",
    ):
        assert isinstance(getattr(paths, name), Path), name
