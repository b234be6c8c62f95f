"""The notebooks of ``examples/`` as pages, and a page that lists them with their first paragraph.

They are executed when the pages are built, if the recordings that they speak of are there: folders
``birds`` and ``bats`` in `RECORDINGS`.  Elsewhere, such as where the site is published, the pages
show the outputs of `KEPT`, which ``docs/make_outputs.py`` has made with the recordings.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

_ROOT = Path(__file__).parents[2]
EXAMPLES = _ROOT / "examples"
KEPT = _ROOT / "docs" / "_outputs"
RECORDINGS = Path(os.environ.get("BACPIPE_EXAMPLES", _ROOT.parent / "shared" / "audio"))
MAY_RUN = (RECORDINGS / "birds").is_dir() and (RECORDINGS / "bats").is_dir()

_ABOUT_KEPT = """\
:::{note}
These outputs were made on recordings that are not published with the code: `birds` are five of
bacpipe's test recordings (Apache-2.0), `bats` those of BatDetect2 (CC BY-NC 4.0). The players of
sounds are left out; they are there when you run the notebook on recordings of your own.
:::"""

_INTRODUCTION = """\
# Notebooks

Four stories on real recordings. To run them yourself, or on recordings of your own, open them in
the folder `examples` of the code:

```bash
pip install jupyterlab
jupyter lab examples
```

They look for recordings in folders `birds` and `bats` beside them; put yours there.

"""


def make_pages(folder: Path) -> None:
    """Put the notebooks into the documentation's folder, with the recordings or kept outputs."""
    folder.mkdir(exist_ok=True)
    notebooks = sorted(EXAMPLES.glob("*.ipynb"))
    for path in notebooks:
        copy, text = folder / path.name, path.read_text("utf-8")
        text = text if MAY_RUN else with_outputs(text, KEPT / path.name)
        if not copy.exists() or copy.read_text("utf-8") != text:
            copy.write_text(text, encoding="utf-8")
    for old in {*folder.glob("*.ipynb")} - {folder / path.name for path in notebooks}:
        old.unlink()
    if MAY_RUN:
        copy_recordings(folder)


def copy_recordings(folder: Path) -> None:
    """Copy the recordings that the notebooks speak of to where these will look for them."""
    for source in (path for name in ("birds", "bats") for path in RECORDINGS.glob(f"{name}/**/*")):
        copy = folder / source.relative_to(RECORDINGS)
        if source.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def with_outputs(text: str, kept: Path) -> str:
    """A notebook with its kept outputs and a note on them; as it is, if these are not its own."""
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if not kept.is_file():
        return text
    known = [
        cell for cell in json.loads(kept.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    if ["".join(cell["source"]) for cell in code] != ["".join(cell["source"]) for cell in known]:
        return text
    for cell, ran in zip(code, known, strict=True):
        cell["outputs"], cell["execution_count"] = ran["outputs"], ran["execution_count"]
    note = {"cell_type": "markdown", "id": "outputs", "metadata": {}, "source": _ABOUT_KEPT}
    notebook["cells"].insert(1, note)
    return json.dumps(notebook, ensure_ascii=False, indent=1)


def index() -> str:
    """Markdown of the list."""
    notebooks = sorted(EXAMPLES.glob("*.ipynb"))
    names = "\n".join(f"/examples/{path.stem}" for path in notebooks)
    entries = "\n".join(map(_entry, notebooks))
    return f"{_INTRODUCTION}{entries}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"


def _entry(path: Path) -> str:
    title, summary = _beginning(path)
    return f"## [{title}](../examples/{path.name})\n\n{summary}\n"


def _beginning(path: Path) -> tuple[str, str]:
    """Heading of a notebook and the paragraph below it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = next(("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"), "")
    blocks = [block.strip() for block in text.split("\n\n") if block.strip()]
    title = blocks[0].partition("\n")[0].lstrip("# ") if blocks else path.stem
    return title, blocks[1] if len(blocks) > 1 else ""
