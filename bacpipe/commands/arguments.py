"""Words of the command line that set keys of the configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bacpipe import configuration
from bacpipe.errors import SettingsError
from bacpipe.yaml_files import load_yaml


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Let a command take YAML files and ``key=value`` words."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file: what to run")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML file: how to run it")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="a key of config.yaml or settings.yaml"
    )


def read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Keys of the user's files, then those of the command line, which win.

    Raises
    ------
    SettingsError
        If a file or a word cannot be understood.
    """
    overrides: dict[str, Any] = {}
    for name in ("config", "settings"):
        path = getattr(options, name)
        beside = Path(f"{name}.yaml")
        if path is None and beside.is_file():
            path = beside
        if path is not None:
            overrides |= configuration.read_overrides(path, name)
    return overrides | parse_words(options.words)


def parse_words(words: Sequence[str]) -> dict[str, Any]:
    """Values by key of words such as ``hop=0.5``."""
    values: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator:
            raise SettingsError(
                f"{word!r} is not understood; expected key=value, such as audio_dir=recordings "
                f"(bacpipe --help shows examples)."
            )
        values[key] = _parse_value(key, text)
    return values


def _parse_value(key: str, text: str) -> Any:
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        raise SettingsError(
            f"{key}={text!r} is not understood; lists are written as {key}='[first, second]'."
        ) from None
