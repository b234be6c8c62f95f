"""Keep what the notebooks show: ``python docs/make_outputs.py``, with the real recordings at hand.

The recordings are no part of the code, so the published site cannot run the notebooks; it shows
what is kept here.  Sounds are left out, for they would be the recordings, and so is what a run says
on the way.  `notebook_page` says where it looks for the recordings.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from notebook_page import EXAMPLES, KEPT, MAY_RUN, RECORDINGS, copy_recordings

_LONGEST = 600  # seconds of a cell
_NO_SOUND = "(here is a player of this sound)"


def main() -> None:
    """Run every notebook in a folder of its own and write it with its outputs."""
    if not MAY_RUN:
        sys.exit(f"{RECORDINGS}: there are no folders birds and bats with the recordings.")
    KEPT.mkdir(exist_ok=True)
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            copy_recordings(Path(folder))
            where = {"metadata": {"path": folder}}
            NotebookClient(book, timeout=_LONGEST, resources=where).execute()
        for cell in book.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs = [_kept(out) for out in cell.outputs if out.get("name") != "stderr"]
        book.metadata.pop("language_info", None)
        nbformat.write(book, KEPT / path.name)


def _kept(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output without sound and paths of this machine, its picture with a palette."""
    data = output.get("data", {})
    if "text" in output:  # commands that a run names
        output.text = re.sub(r"\S+/bacpipe(?= )", "bacpipe", output.text)
    if "<audio" in data.get("text/html", ""):
        output.data = {"text/plain": _NO_SOUND}
    elif "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        small = io.BytesIO()
        picture.convert("RGB").quantize(128).save(small, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()
    return output


if __name__ == "__main__":
    main()
