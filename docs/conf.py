"""Configuration of the documentation: ``sphinx-build -W --keep-going -b html docs OUT``."""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
# The documentation of a checkout is about this checkout.
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import notebook_page  # noqa: E402

import bacpipe  # noqa: E402

project = "bacpipe"
author = "the bacpipe authors"
copyright = "the bacpipe authors, Apache-2.0"
release = version = bacpipe.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "accessible",
    "class_lists",
    "dashboard_views",
    "generated_pages",
    "links",
    "property_types",
]
exclude_patterns = [
    "_build",
    "_extensions",
    "_outputs",
    "examples/bacpipe_results",
    "examples/**/*.md",
]
templates_path: list[str] = []

# ---------------------------------------------------------------- Markdown

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# ---------------------------------------------------------------- notebooks

nb_execution_mode = "cache" if notebook_page.MAY_RUN else "off"
# BatDetect2 is an extra.
nb_execution_excludepatterns = [] if find_spec("batdetect2") else ["examples/*bats.ipynb"]
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_in_temp = False
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_merge_streams = True

# ---------------------------------------------------------------- docstrings

default_role = "py:obj"
autodoc_typehints = "none"  # the docstrings say types, with shapes and units
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
add_module_names = False
python_display_short_literal_types = True


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Address of the source of a public name on the code host."""
    found: object = importlib.import_module(info["module"])
    for part in info["fullname"].split("."):
        found = inspect.getattr_static(found, part, None) or getattr(found, part, None)
    found = inspect.unwrap(getattr(found, "fget", None) or getattr(found, "__func__", found))
    try:
        path = Path(inspect.getsourcefile(found)).relative_to(HERE.parent)
        line = inspect.getsourcelines(found)[1]
    except (TypeError, OSError):  # a constant, or what a dataclass has written
        return None
    return f"https://github.com/bioacoustic-ai/bacpipe/blob/main/{path.as_posix()}#L{line}"


# ---------------------------------------------------------------- pages

html_theme = "furo"
html_title = "bacpipe"
html_static_path = ["_static"]
html_css_files = ["bacpipe.css"]
html_search_scorer = str(HERE / "_extensions" / "scorer.js")
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {
        "color-brand-primary": "#0f766e",
        "color-brand-content": "#0f766e",
        "color-brand-visited": "#0f766e",
        "color-api-name": "#0f766e",
        "color-api-pre-name": "#0f766e",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5eead4",
        "color-brand-content": "#5eead4",
        "color-brand-visited": "#5eead4",
        "color-api-name": "#5eead4",
        "color-api-pre-name": "#5eead4",
    },
}
html_show_sphinx = False
html_copy_source = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Links to other sites are not followed: a build needs no network.
linkcheck_workers = 1
