"""The notebooks of ``examples/`` as pages, and a page that lists them with their first paragraph.

They are executed when the pages are built, if the recordings that they speak of are there: folders
``birds`` and ``bats`` in `RECORDINGS`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_EXAMPLES = _ROOT / "examples"
RECORDINGS = Path(os.environ.get("BACPIPE_EXAMPLES", _ROOT.parent / "shared" / "audio"))
MAY_RUN = (RECORDINGS / "birds").is_dir() and (RECORDINGS / "bats").is_dir()

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
    """Copy the notebooks into the documentation's folder, with the recordings if they are there."""
    folder.mkdir(exist_ok=True)
    notebooks = sorted(_EXAMPLES.glob("*.ipynb"))
    for path in notebooks:
        copy = folder / path.name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)
    for old in {*folder.glob("*.ipynb")} - {folder / path.name for path in notebooks}:
        old.unlink()
    if MAY_RUN:
        for source in (
            path for name in ("birds", "bats") for path in RECORDINGS.glob(f"{name}/**/*")
        ):
            copy = folder / source.relative_to(RECORDINGS)
            if source.is_file() and not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)


def index() -> str:
    """Markdown of the list."""
    notebooks = sorted(_EXAMPLES.glob("*.ipynb"))
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
