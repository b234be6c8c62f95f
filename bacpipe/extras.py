"""The optional dependencies ("extras") of bacpipe, and what to say when one cannot be imported."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable

from bacpipe.errors import said

_ABOUT_EXTRA = re.compile(r"extra\s*==\s*['\"](?P<extra>[\w-]+)['\"]")
_NAME = re.compile(r"[A-Za-z0-9._-]+")

MISSING = "missing"
"""Stands for the version of a distribution that is not installed."""


def version(distribution: str) -> str:
    """Installed version of a distribution, or `MISSING`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def versions(extra: str) -> dict[str, str]:
    """Distributions that an extra asks for on this Python, each with its version or `MISSING`."""
    names = []
    try:
        requirements = importlib.metadata.requires("bacpipe") or []
    except importlib.metadata.PackageNotFoundError:  # run from a clone that is not installed
        requirements = []
    for requirement in requirements:
        about, package = _ABOUT_EXTRA.search(requirement), _NAME.match(requirement)
        if about is not None and about["extra"] == extra and package is not None:
            names.append(package[0])
    return {name: version(name) for name in names}


def modules(distributions: Iterable[str]) -> list[str]:
    """Names by which the modules of distributions are imported: faiss, for faiss-cpu."""
    wanted = {name.lower().replace("_", "-") for name in distributions}
    return sorted(
        module
        for module, sources in importlib.metadata.packages_distributions().items()
        if module.isidentifier() and wanted & {name.lower().replace("_", "-") for name in sources}
    )


def command(extra: str) -> str:
    """How an extra is installed: from the code, because a package index has an older bacpipe."""
    return f'pip install -c constraints.txt ".[{extra}]" (in the folder of bacpipe\'s code)'


def cannot_import(what: str, extra: str, error: Exception) -> str:
    """Sentence on a package of an extra that cannot be imported, and what to do.

    Parameters
    ----------
    what : str
        What needs the package, such as "The model 'vggish'".
    extra : str
        Name of the extra.
    error : Exception
        What the import raised: packages that are broken raise anything.
    """
    installed = versions(extra)
    absent = [name for name, number in installed.items() if number == MISSING]
    gone = isinstance(error, ModuleNotFoundError)
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if absent or (gone and not installed):
        noun, are, them = _forms(len(absent) or 1, "the package", "the packages")
        return (
            f"{what} needs {noun} {' and '.join(absent) or package}, which {are} not installed; "
            f"install {them} with: {command(extra)}"
        )
    having = " and ".join(f"{name} {number}" for name, number in installed.items())
    having = having or package or f"the extra {extra!r}"
    _, are, them = _forms(len(installed) or 1)
    needs = "itself needs" if are == "is" else "need"
    if gone and package and package not in installed:
        return (
            f"{what} needs {having}, which {are} installed but {needs} "
            f"the package {package!r}, which is missing; install it with: pip install {package}"
        )
    reason = said(error)[:300] or type(error).__name__
    again = command(extra).replace("install", "install --force-reinstall", 1)
    if installed:  # these and what they need, rather than all that bacpipe needs
        again = again.replace(f'".[{extra}]"', " ".join(installed))
    return (
        f"{what} needs {having}, which {are} installed but cannot be imported ({reason}); install "
        f"{them} anew with: {again}{_hint(reason)}"
    )


def _forms(number: int, one: str = "", several: str = "") -> tuple[str, str, str]:
    """Noun, verb and pronoun for a number of packages."""
    return (one, "is", "it") if number == 1 else (several, "are", "them")


def _hint(reason: str) -> str:
    if "DLL" in reason or "WinError" in reason:
        return " (on Windows, Microsoft's Visual C++ Redistributable is what most often lacks)"
    return ""
