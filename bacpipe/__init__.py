"""bacpipe: bioacoustic deep-learning models over your recordings.

The public names are loaded when they are first used, so that ``import bacpipe`` is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from bacpipe._version import __version__

if not (3, 11) <= sys.version_info < (3, 15):
    # pip refuses such a Python by itself, but not everybody installs what they have cloned.
    raise ImportError(
        f"bacpipe needs Python 3.11 to 3.14; this is Python {sys.version_info[0]}."
        f"{sys.version_info[1]} ({sys.executable}). Make an environment with another one, such as "
        f"python3.12 -m venv .venv, and install bacpipe there."
    )

# Public name -> module that defines it.
_PUBLIC = {
    "AudioHandler": "bacpipe.inference.audio_handler",
    "BacpipeError": "bacpipe.errors",
    "DefaultLabels": "bacpipe.labels.default_labels",
    "Embedder": "bacpipe.embedder",
    "Loader": "bacpipe.store.loader",
    "MetadataLabelMaker": "bacpipe.labels.default_labels",
    "ModelBaseClass": "bacpipe.models.base",
    "benchmark": "bacpipe.evaluation.benchmark",
    "clustering_pipeline": "bacpipe.evaluation.clustering",
    "confirm_model_name": "bacpipe.workflows",
    "create_default_labels": "bacpipe.labels.default_labels",
    "cross_model_evaluation": "bacpipe.evaluation.comparison",
    "detections_table": "bacpipe.labels.exporting",
    "ensure_models_exist": "bacpipe.workflows",
    "eval_clustering": "bacpipe.evaluation.clustering",
    "eval_with_silhouette": "bacpipe.evaluation.clustering",
    "evaluation_with_settings_already_exists": "bacpipe.workflows",
    "export_audacity_labels": "bacpipe.labels.exporting",
    "export_raven_tables": "bacpipe.labels.exporting",
    "generate_embeddings": "bacpipe.workflows",
    "get_audio_files": "bacpipe.workflows",
    "get_default_labels": "bacpipe.labels.default_labels",
    "get_dt_filename": "bacpipe.audio.timestamps",
    "get_model_names": "bacpipe.workflows",
    "ground_truth_by_model": "bacpipe.labels.ground_truth",
    "import_annotations": "bacpipe.annotations.importing",
    "make_demo": "bacpipe.demo",
    "make_set_paths_func": "bacpipe.workflows",
    "metadata_labels": "bacpipe.labels.default_labels",
    "model_specific_evaluation": "bacpipe.evaluation.evaluate",
    "play": "bacpipe.workflows",
    "prepare_probe_inference": "bacpipe.evaluation.probing",
    "probing_pipeline": "bacpipe.evaluation.probing",
    "recording_start": "bacpipe.audio.timestamps",
    "run_clustering": "bacpipe.evaluation.clustering",
    "run_pipeline_for_models": "bacpipe.workflows",
    "run_pipeline_for_single_model": "bacpipe.workflows",
    "run_probe_inference": "bacpipe.evaluation.probing",
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


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name in _CONSTANTS:
        value = getattr(importlib.import_module("bacpipe.models.zoo"), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"bacpipe.{name}")
    elif name in _NAMESPACES:
        value = getattr(importlib.import_module("bacpipe.configuration"), name)()
    else:
        raise AttributeError(f"module 'bacpipe' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
