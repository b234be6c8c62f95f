"""The examples in the docstrings of the public names run, and show what really comes out.

They run in a folder that holds what they speak of: the demo as ``recordings``, results of BirdNET
on it, trained probes, ``birds.csv``, in which the demo's calls have the names that BirdNET gives
them, and ``bats`` with a recording of synthetic calls.
"""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import bacpipe
from tests.documentation.conftest import lay_out

_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_EXAMPLES = {
    test.name.removeprefix("bacpipe."): test
    for name in bacpipe.__all__
    if callable(getattr(bacpipe, name))
    for test in doctest.DocTestFinder(exclude_empty=True).find(
        getattr(bacpipe, name), f"bacpipe.{name}", module=False
    )
    if test.examples
}


@pytest.fixture(scope="module")
def laid_out(prepared: Path) -> Path:
    """The prepared folder, which examples share."""
    lay_out(prepared)
    return prepared


@pytest.mark.parametrize("name", sorted(_EXAMPLES))
def test_example_runs(
    name: str, laid_out: Path, restored_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every example gives what its docstring shows."""
    if name == "build_search_index":
        pytest.importorskip("faiss", reason="the extra 'search' is not installed")
    monkeypatch.chdir(laid_out)
    bacpipe.settings.device = "cpu"
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=_OPTIONS, verbose=False)
    runner.run(_EXAMPLES[name], out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_every_public_name_has_an_example() -> None:
    """No function or class is documented without one."""
    names = [name for name in bacpipe.__all__ if callable(getattr(bacpipe, name))]
    documented = {name.partition(".")[0] for name in _EXAMPLES}
    assert sorted(set(names) - documented) == []


def test_examples_are_not_skipped() -> None:
    """What cannot run here would be better shown in a guide."""
    skipped = [
        name
        for name, test in _EXAMPLES.items()
        if any(example.options.get(doctest.SKIP) for example in test.examples)
    ]
    assert skipped == []


@pytest.mark.parametrize(
    "name", [name for name in bacpipe.__all__ if callable(getattr(bacpipe, name))]
)
def test_parameters_and_results_are_described(name: str) -> None:
    """Docstrings name every parameter, and say what is returned."""
    value = getattr(bacpipe, name)
    text = inspect.getdoc(value) or ""
    assert text
    try:
        signature = inspect.signature(value)
    except ValueError:  # exceptions have none
        return
    parameters = list(signature.parameters)
    rest = text.partition("Parameters\n----------\n")[2]
    section = re.split(r"\n\n(?=\S+\n-+\n)", rest)[0]  # up to the next heading
    headings = [line for line in section.splitlines() if not line.startswith(" ")]
    described = {
        word.strip(" *") for line in headings for word in line.partition(" : ")[0].split(",")
    }
    assert set(parameters) - described == set()
    if not inspect.isclass(value) and signature.return_annotation not in ("None", None):
        assert "\nReturns\n-------\n" in text or "Yields\n------\n" in text
