"""bacpipe: bioacoustic deep-learning models over your recordings.

The public names are loaded when they are first used, so that ``import bacpipe`` is quick.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from bacpipe._version import __version__

if not (3, 11) <= sys.version_info < (3, 15):
    # pip refuses such a Python by itself, but not everybody installs what they have cloned.
    raise ImportError(
        f"bacpipe needs Python 3.11 to 3.14; this is Python {sys.version_info[0]}."
        f"{sys.version_info[1]} ({sys.executable}). Make an environment with another one, such as "
        f"python3.12 -m venv .venv, and install bacpipe there."
    )

if TYPE_CHECKING:
    # What type checkers and editors see; a test compares it with the names below.
    from bacpipe import dashboard as dashboard
    from bacpipe import models as models
    from bacpipe.annotations.importing import import_annotations as import_annotations
    from bacpipe.audio.timestamps import get_dt_filename as get_dt_filename
    from bacpipe.audio.timestamps import recording_start as recording_start
    from bacpipe.dashboard.server import visualize_using_dashboard as visualize_using_dashboard
    from bacpipe.demo import make_demo as make_demo
    from bacpipe.embedder import Embedder as Embedder
    from bacpipe.errors import BacpipeError as BacpipeError
    from bacpipe.evaluation.benchmark import benchmark as benchmark
    from bacpipe.evaluation.clustering import clustering_pipeline as clustering_pipeline
    from bacpipe.evaluation.clustering import eval_clustering as eval_clustering
    from bacpipe.evaluation.clustering import eval_with_silhouette as eval_with_silhouette
    from bacpipe.evaluation.clustering import run_clustering as run_clustering
    from bacpipe.evaluation.comparison import cross_model_evaluation as cross_model_evaluation
    from bacpipe.evaluation.evaluate import model_specific_evaluation as model_specific_evaluation
    from bacpipe.evaluation.probing import prepare_probe_inference as prepare_probe_inference
    from bacpipe.evaluation.probing import probing_pipeline as probing_pipeline
    from bacpipe.evaluation.probing import run_probe_inference as run_probe_inference
    from bacpipe.exports.audacity import export_audacity_labels as export_audacity_labels
    from bacpipe.exports.detections import detections_table as detections_table
    from bacpipe.exports.export import export as export
    from bacpipe.exports.people import export_people_labels as export_people_labels
    from bacpipe.exports.raven import export_raven_tables as export_raven_tables
    from bacpipe.exports.survey import detection_history as detection_history
    from bacpipe.exports.survey import survey_table as survey_table
    from bacpipe.inference.audio_handler import AudioHandler as AudioHandler
    from bacpipe.labels.annotator_agreement import label_agreement as label_agreement
    from bacpipe.labels.default_labels import DefaultLabels as DefaultLabels
    from bacpipe.labels.default_labels import MetadataLabelMaker as MetadataLabelMaker
    from bacpipe.labels.default_labels import create_default_labels as create_default_labels
    from bacpipe.labels.default_labels import get_default_labels as get_default_labels
    from bacpipe.labels.default_labels import metadata_labels as metadata_labels
    from bacpipe.labels.ground_truth import ground_truth_by_model as ground_truth_by_model
    from bacpipe.labels.people import label_windows as label_windows
    from bacpipe.labels.people import people_labels as people_labels
    from bacpipe.labels.people import settled_labels as settled_labels
    from bacpipe.models.base import ModelBaseClass as ModelBaseClass
    from bacpipe.models.zoo import EMBEDDING_DIMENSIONS as EMBEDDING_DIMENSIONS
    from bacpipe.models.zoo import NEEDS_CHECKPOINT as NEEDS_CHECKPOINT
    from bacpipe.models.zoo import TF_MODELS as TF_MODELS
    from bacpipe.models.zoo import models_needing_checkpoint as models_needing_checkpoint
    from bacpipe.models.zoo import supported_models as supported_models
    from bacpipe.options import Namespace
    from bacpipe.places.species_range import species_at as species_at
    from bacpipe.recognisers.calibration import Calibration as Calibration
    from bacpipe.recognisers.calibration import calibrate as calibrate
    from bacpipe.recognisers.recogniser import Recogniser as Recogniser
    from bacpipe.recognisers.review_plan import review_plan as review_plan
    from bacpipe.recognisers.suggestions import suggest as suggest
    from bacpipe.recognisers.training import train_recogniser as train_recogniser
    from bacpipe.scaling.planning import plan_shards as plan_shards
    from bacpipe.search.find import build_search_index as build_search_index
    from bacpipe.search.find import search as search
    from bacpipe.store.loader import Loader as Loader
    from bacpipe.what_is_there import confirm_model_name as confirm_model_name
    from bacpipe.what_is_there import ensure_models_exist as ensure_models_exist
    from bacpipe.what_is_there import (
        evaluation_with_settings_already_exists as evaluation_with_settings_already_exists,
    )
    from bacpipe.what_is_there import get_model_names as get_model_names
    from bacpipe.what_is_there import make_set_paths_func as make_set_paths_func
    from bacpipe.workflows import detect_calls as detect_calls
    from bacpipe.workflows import generate_embeddings as generate_embeddings
    from bacpipe.workflows import get_audio_files as get_audio_files
    from bacpipe.workflows import play as play
    from bacpipe.workflows import run_pipeline_for_models as run_pipeline_for_models
    from bacpipe.workflows import run_pipeline_for_single_model as run_pipeline_for_single_model

    config: Namespace
    settings: Namespace

# Public name -> module that defines it.
_PUBLIC = {
    "AudioHandler": "bacpipe.inference.audio_handler",
    "BacpipeError": "bacpipe.errors",
    "Calibration": "bacpipe.recognisers.calibration",
    "DefaultLabels": "bacpipe.labels.default_labels",
    "Embedder": "bacpipe.embedder",
    "Loader": "bacpipe.store.loader",
    "MetadataLabelMaker": "bacpipe.labels.default_labels",
    "ModelBaseClass": "bacpipe.models.base",
    "Recogniser": "bacpipe.recognisers.recogniser",
    "benchmark": "bacpipe.evaluation.benchmark",
    "calibrate": "bacpipe.recognisers.calibration",
    "clustering_pipeline": "bacpipe.evaluation.clustering",
    "confirm_model_name": "bacpipe.what_is_there",
    "create_default_labels": "bacpipe.labels.default_labels",
    "cross_model_evaluation": "bacpipe.evaluation.comparison",
    "detect_calls": "bacpipe.workflows",
    "detection_history": "bacpipe.exports.survey",
    "detections_table": "bacpipe.exports.detections",
    "ensure_models_exist": "bacpipe.what_is_there",
    "eval_clustering": "bacpipe.evaluation.clustering",
    "eval_with_silhouette": "bacpipe.evaluation.clustering",
    "evaluation_with_settings_already_exists": "bacpipe.what_is_there",
    "export": "bacpipe.exports.export",
    "export_audacity_labels": "bacpipe.exports.audacity",
    "export_people_labels": "bacpipe.exports.people",
    "export_raven_tables": "bacpipe.exports.raven",
    "generate_embeddings": "bacpipe.workflows",
    "get_audio_files": "bacpipe.workflows",
    "get_default_labels": "bacpipe.labels.default_labels",
    "get_dt_filename": "bacpipe.audio.timestamps",
    "get_model_names": "bacpipe.what_is_there",
    "ground_truth_by_model": "bacpipe.labels.ground_truth",
    "import_annotations": "bacpipe.annotations.importing",
    "label_agreement": "bacpipe.labels.annotator_agreement",
    "label_windows": "bacpipe.labels.people",
    "make_demo": "bacpipe.demo",
    "make_set_paths_func": "bacpipe.what_is_there",
    "metadata_labels": "bacpipe.labels.default_labels",
    "model_specific_evaluation": "bacpipe.evaluation.evaluate",
    "people_labels": "bacpipe.labels.people",
    "plan_shards": "bacpipe.scaling.planning",
    "play": "bacpipe.workflows",
    "prepare_probe_inference": "bacpipe.evaluation.probing",
    "probing_pipeline": "bacpipe.evaluation.probing",
    "recording_start": "bacpipe.audio.timestamps",
    "run_clustering": "bacpipe.evaluation.clustering",
    "review_plan": "bacpipe.recognisers.review_plan",
    "run_pipeline_for_models": "bacpipe.workflows",
    "run_pipeline_for_single_model": "bacpipe.workflows",
    "run_probe_inference": "bacpipe.evaluation.probing",
    "build_search_index": "bacpipe.search.find",
    "search": "bacpipe.search.find",
    "species_at": "bacpipe.places.species_range",
    "settled_labels": "bacpipe.labels.people",
    "suggest": "bacpipe.recognisers.suggestions",
    "survey_table": "bacpipe.exports.survey",
    "train_recogniser": "bacpipe.recognisers.training",
    "visualize_using_dashboard": "bacpipe.dashboard.server",
}
_CONSTANTS = (
    "EMBEDDING_DIMENSIONS",
    "NEEDS_CHECKPOINT",
    "TF_MODELS",
    "models_needing_checkpoint",
    "supported_models",
)
_NAMESPACES = ("config", "settings")
_PACKAGES = ("dashboard", "models")

__all__ = ["__version__", *_PUBLIC, *_CONSTANTS, *_NAMESPACES, *_PACKAGES]


class _Package(ModuleType):
    """A folder that is called like a public function does not take its name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


# Importing bacpipe.search.index would set `search` to the folder, instead of the function.
sys.modules[__name__].__class__ = _Package


if not TYPE_CHECKING:  # or every name would exist for a type checker

    def __getattr__(name: str) -> object:
        if name in _PUBLIC:
            value = getattr(importlib.import_module(_PUBLIC[name]), name)
        elif name in _CONSTANTS:
            value = getattr(importlib.import_module("bacpipe.models.zoo"), name)
        elif name in _PACKAGES:
            value = importlib.import_module(f"bacpipe.{name}")
        elif name in _NAMESPACES:
            value = getattr(importlib.import_module("bacpipe.options"), f"user_{name}")()
        else:
            raise AttributeError(f"module 'bacpipe' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
