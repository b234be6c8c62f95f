"""What type checkers and editors know of the public names."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bacpipe

PACKAGE = Path(bacpipe.__file__).parent

needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed"
)

SNIPPET = """\
import bacpipe
from bacpipe.options import make_options

loader = bacpipe.Loader("recordings", "birdnet")
reveal_type(loader)
loader.embedings()
bacpipe.Loadr
reveal_type(bacpipe.generate_embeddings(model_name="birdnet", audio_dir="recordings", hop=1))
bacpipe.generate_embeddings(model_name=3)
bacpipe.settings.padding = "edge"
options = make_options()
reveal_type(options.hop)
options.clasifier_threshold
options.hop = 1
reveal_type(bacpipe.EMBEDDING_DIMENSIONS)
"""


def typed_names() -> dict[str, str]:
    """Public names in the block for type checkers, each with the module it comes from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    names = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            # Without "as", a name is not passed on to those who import it from here.
            names.update({n.asname: str(node.module) for n in node.names if n.asname == n.name})
        elif isinstance(node, ast.AnnAssign):
            names[ast.unparse(node.target)] = "bacpipe.options"
    return names


def test_type_checkers_see_every_public_name_where_it_is() -> None:
    names = typed_names()
    assert sorted(names) == sorted(set(bacpipe.__all__) - {"__version__"})
    for name, module in bacpipe._PUBLIC.items():
        assert names[name] == module
        if inspect.isfunction(getattr(bacpipe, name)):
            assert inspect.signature(getattr(bacpipe, name)).return_annotation is not None
    assert (PACKAGE / "py.typed").is_file()


@needs_mypy
def test_mypy_finds_what_is_misspelt(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET)
    # Without the types of other packages, which take a minute.
    command = [sys.executable, "-m", "mypy", "--strict", "--no-site-packages"]
    command += ["--ignore-missing-imports", "--follow-imports", "silent", "--config-file", ""]
    command += ["--cache-dir", str(tmp_path / "cache"), str(file)]
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=240
    )
    said = {}
    for line in done.stdout.splitlines():
        if line.startswith(str(file)) or "snippet.py:" in line:
            number, _, text = line.partition("snippet.py:")[2].partition(": ")
            said[int(number)] = text
    expected = {
        5: 'Revealed type is "bacpipe.store.loader.Loader"',
        6: '"Loader" has no attribute "embedings"',
        7: 'Module has no attribute "Loadr"',
        8: 'Revealed type is "bacpipe.store.loader.Loader"',
        9: 'Argument "model_name" to "generate_embeddings" has incompatible type "int"',
        12: 'Revealed type is "float | None"',
        13: '"Options" has no attribute "clasifier_threshold"',
        14: 'Property "hop" defined in "Options" is read-only',
        15: 'Revealed type is "dict[str, int]"',
    }
    assert set(said) == set(expected), done.stdout + done.stderr
    for number, text in expected.items():
        # Older versions write Union[...] and builtins.
        found = said[number].replace("builtins.", "").replace("Union[float, None]", "float | None")
        assert text in found
