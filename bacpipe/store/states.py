"""Hashes of everything that the journal says is done, by which later results know their inputs.

They are computed line by line: as one text, a data set takes hundreds of megabytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any


def embeddings_state(done: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of all embeddings.

    Parameters
    ----------
    done : mapping of str to mapping
        The journal's lines of recordings that are done.
    """
    names = sorted(done)
    texts: Iterable[str] = (_text(name, done[name]) for name in names)
    if any(_is_followed_out_of_order(*pair) for pair in pairwise(names)):
        texts = sorted(texts)
    digest = hashlib.sha256()
    for number, text in enumerate(texts):
        digest.update(("\n" + text if number else text).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _text(name: str, line: Mapping[str, Any]) -> str:
    sha256 = (line.get("embeddings") or {}).get("sha256")
    return f"{name} {line['windows']} {line.get('duration')} {sha256}"


def _is_followed_out_of_order(name: str, following: str) -> bool:
    """Whether two names may change places when a space and more is added to both."""
    return following.startswith(name) and following[len(name)] <= " "


def predictions_state(folder: str, done: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of all predictions.

    Parameters
    ----------
    folder : str
        Name of the folder of the embeddings.
    done : mapping of str to mapping
        The journal's lines of recordings that are done.
    """
    digest = hashlib.sha256(f"[{json.dumps(folder)}, [".encode())
    separator = ""
    for name in sorted(done):
        line = done[name]
        if line.get("predictions"):
            sha256 = line["embeddings"].get("sha256")
            content = [name, line["windows"], sha256, line["predictions"]]
            digest.update((separator + json.dumps(content, sort_keys=True)).encode())
            separator = ", "
    digest.update(b"]]")
    return digest.hexdigest()
