"""The API reference: pages of directives that read the docstrings of the public names."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import bacpipe
from bacpipe import errors
from bacpipe.options import Namespace, user_config, user_settings

# Page, its heading, and the beginning of the modules whose names it holds; the first one fits.
_PAGES = (
    ("pipelines", "Running models", ("bacpipe.workflows", "bacpipe.demo")),
    (
        "classes",
        "Processing classes",
        ("bacpipe.embedder", "bacpipe.inference", "bacpipe.store", "bacpipe.models.base"),
    ),
    (
        "labels",
        "Labels and annotations",
        ("bacpipe.labels", "bacpipe.annotations", "bacpipe.audio"),
    ),
    ("search", "Searching", ("bacpipe.search",)),
    ("recognisers", "Recognisers", ("bacpipe.recognisers",)),
    ("places", "Places and species", ("bacpipe.places",)),
    ("exports", "Tables and exports", ("bacpipe.exports",)),
    ("probing", "Probing", ("bacpipe.evaluation.prob",)),
    ("clustering", "Clustering", ("bacpipe.evaluation.clust",)),
    ("evaluation", "Benchmarks and comparisons", ("bacpipe.evaluation",)),
    ("dashboard", "Dashboard", ("bacpipe.dashboard",)),
    ("managing", "Managing models and results", ("bacpipe.what_is_there",)),
    ("scaling", "Many machines", ("bacpipe.scaling",)),
    ("more", "More", ("bacpipe",)),
)

# Within a page, the names that people look for come first.
_FIRST = ("play", "generate_embeddings", "Loader", "Embedder", "AudioHandler", "ModelBaseClass")

# Members that other rooms of the package need, and users do not.
INNER = {
    "AudioHandler": ("batch_size", "decode", "decoder", "runner", "workload"),
    "Loader": (
        "channels",
        "claim",
        "classes",
        "embeddings_state",
        "entries",
        "heard_channel",
        "heard_windows",
        "highest_frequency",
        "is_part",
        "locate_predictions",
        "model_window",
        "predictions_state",
        "range_filter",
        "require_predictions",
        "selection",
        "stems",
        "stored_detections",
        "threshold",
        "update_recording_names",
    ),
    "Recogniser": ("check", "digest"),
    "ResultPaths": ("claims_path", "contract_path", "manifest_path"),
    "RunReport": ("add_time",),
}

_RETURNED = {
    "bacpipe.store.layout": ("ResultPaths",),
    "bacpipe.inference.report": ("RunReport",),
    "bacpipe.embedder": ("Classifier",),
    "bacpipe.models.card": ("ModelCard", "Scope"),
    "bacpipe.options": ("Namespace",),
}

_VARIABLES = {
    "__version__": "Version of the installed bacpipe.",
    "config": f"{user_config.__doc__} Keys: see :doc:`/reference/settings`.",
    "settings": f"{user_settings.__doc__} Keys: see :doc:`/reference/settings`.",
}


def pages() -> dict[str, str]:
    """Markdown by file name: a page per group of names, and the index."""
    groups = _grouped()
    made = {
        f"{page}.md": _page(heading, groups[page]) for page, heading, _ in _PAGES if groups[page]
    }
    made["constants.md"] = _constants()
    made["returned.md"] = _returned()
    made["errors.md"] = _errors()
    made["index.md"] = _index(groups)
    return made


def _public() -> dict[str, Any]:
    return {
        name: getattr(bacpipe, name)
        for name in bacpipe.__all__
        if callable(getattr(bacpipe, name)) and name != "BacpipeError"
    }


def _grouped() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {page: [] for page, _, _ in _PAGES}
    for name in sorted(_public(), key=_order):
        module = bacpipe._PUBLIC[name]
        groups[_page_of(module)].append(name)
    return groups


def _page_of(module: str) -> str:
    return next(page for page, _, begins in _PAGES if module.startswith(begins) and begins)


def _order(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name.lower())


def _page(heading: str, names: list[str]) -> str:
    return f"# {heading}\n\n{_rst(*map(_directive, names))}"


def _directive(name: str) -> str:
    if not inspect.isclass(getattr(bacpipe, name)):
        return f".. autofunction:: {name}"
    lines = [*_class(name, name), "   :show-inheritance:"]
    if name == "ModelBaseClass":
        lines.append("   :special-members: __call__")
    return "\n".join(lines)


def _class(name: str, path: str) -> list[str]:
    left_out = ("count", "index", *INNER.get(name, ()))  # the first two are of named tuples
    return [
        f".. autoclass:: {path}",
        "   :members:",
        f"   :exclude-members: {', '.join(left_out)}",
    ]


def documented_classes() -> list[type]:
    """All classes of the reference but errors."""
    returned = [
        getattr(importlib.import_module(module), name)
        for module, names in _RETURNED.items()
        for name in names
    ]
    return [value for value in _public().values() if inspect.isclass(value)] + returned


def _rst(*directives: str) -> str:
    body = "\n\n".join((".. py:currentmodule:: bacpipe", *directives))
    return f"```{{eval-rst}}\n{body}\n```\n"


def _constants() -> str:
    analyzer = ModuleAnalyzer.for_module("bacpipe.models.zoo")
    documented = {name: " ".join(text) for (_, name), text in analyzer.find_attr_docs().items()}
    listed = []
    for name in bacpipe.__all__:
        value = getattr(bacpipe, name)
        if name in _VARIABLES:
            text = _VARIABLES[name]
        elif inspect.ismodule(value):
            text = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")
        elif not callable(value):
            text = documented[name].strip()
            content = ", ".join(
                f"``{key!r}: {value[key]!r}``" if isinstance(value, dict) else f"``{key!r}``"
                for key in value
            )
            text += f"\n\n   {content}"
        else:
            continue
        listed.append(f".. py:data:: {name}\n   :type: {_kind(value)}\n\n   {text}")
    return f"# Constants and settings\n\n{_rst(*listed)}"


def _kind(value: Any) -> str:
    match value:
        case dict():
            return "dict[str, int]"
        case list():
            return "list[str]"
        case Namespace():
            return "Namespace"
        case _:
            return "module" if inspect.ismodule(value) else "str"


def _returned() -> str:
    directives = [
        "\n".join(_class(name, f"{module}.{name}"))
        for module, names in _RETURNED.items()
        for name in names
    ]
    return f"# What functions return\n\n{_rst(*directives)}"


def _errors() -> str:
    listed = [
        f".. autoexception:: bacpipe.errors.{name}\n   :show-inheritance:"
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, errors.BacpipeError)
        and value is not errors.BacpipeError
    ]
    return (
        "# Errors\n\nAll are subclasses of `bacpipe.BacpipeError`, and imported as in "
        "`from bacpipe.errors import SettingsError`; "
        "[Errors and what to do](../../errors.md) explains the messages.\n\n"
        f"{_rst('.. autoexception:: BacpipeError', *listed)}"
    )


def _index(groups: dict[str, list[str]]) -> str:
    rows = []
    for page, heading, _ in _PAGES:
        if groups[page]:
            rows.append(f"## [{heading}]({page}.md)\n")
            rows += [f"- {{py:obj}}`bacpipe.{name}`: {_summary(name)}" for name in groups[page]]
            rows.append("")
    listed = "\n".join(rows)
    files = [page for page, _, _ in _PAGES if groups[page]] + ["constants", "returned", "errors"]
    toctree = "\n".join(files)
    return (
        "# Python reference\n\nEverything that `import bacpipe` offers. Names are loaded when "
        "they are first used, so that the import is quick. Examples speak of `recordings`, the "
        'folder that `bacpipe.make_demo("recordings")` makes.\n\n'
        f"{listed}\n## Also\n\n- [Constants and settings](constants.md)\n"
        "- [What functions return](returned.md)\n- [Errors](errors.md)\n\n"
        f"```{{toctree}}\n:hidden:\n\n{toctree}\n```\n"
    )


def _summary(name: str) -> str:
    return (inspect.getdoc(getattr(bacpipe, name)) or "").partition("\n")[0].replace("`", "")
