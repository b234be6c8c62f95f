"""A page that lists the notebooks of ``examples/`` with their first paragraph."""

from __future__ import annotations

import json
from pathlib import Path

_EXAMPLES = Path(__file__).parents[2] / "examples"
_ADDRESS = "https://github.com/bioacoustic-ai/bacpipe/blob/main/examples"

_INTRODUCTION = """\
# Notebooks

Worked examples on the demo recordings, in the folder `examples/` of the repository. They run as
they are, in a few minutes, without network:

```bash
pip install jupyterlab
jupyter lab examples
```

"""


def pages() -> dict[str, str]:
    """Markdown by file name; empty when there are no notebooks."""
    notebooks = sorted(_EXAMPLES.glob("*.ipynb"))
    if not notebooks:
        return {}
    return {"notebooks.md": _INTRODUCTION + "\n".join(map(_entry, notebooks)) + "\n"}


def _entry(path: Path) -> str:
    title, summary = _beginning(path)
    return f"## {title}\n\n{summary}\n\n[{path.name}]({_ADDRESS}/{path.name})\n"


def _beginning(path: Path) -> tuple[str, str]:
    """Heading of a notebook and the paragraph below it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = next(("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"), "")
    blocks = [block.strip() for block in text.split("\n\n") if block.strip()]
    title = blocks[0].partition("\n")[0].lstrip("# ") if blocks else path.stem
    return title, blocks[1] if len(blocks) > 1 else ""
