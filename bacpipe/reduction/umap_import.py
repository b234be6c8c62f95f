"""umap-learn without its neural variant."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def load_umap() -> Any:
    """Import umap-learn, which takes seconds, when it is needed.

    umap-learn also imports TensorFlow and Keras if they are installed, for a variant that is
    not used here.  That takes ten seconds more, and TensorFlow and PyTorch in one process can
    end it with a segmentation fault.

    Returns
    -------
    type
        The class ``umap.UMAP``.
    """
    unused = "umap.parametric_umap"
    if "umap" not in sys.modules:
        # Python's way to say that a module cannot be imported, for which umap is prepared.
        sys.modules[unused] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)
            from umap import UMAP
    finally:
        if unused in sys.modules and sys.modules[unused] is None:
            del sys.modules[unused]
    return UMAP
