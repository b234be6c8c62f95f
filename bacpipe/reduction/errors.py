"""What can go wrong while embeddings are reduced."""

from __future__ import annotations

from bacpipe.errors import BacpipeError


class ReductionError(BacpipeError, ValueError):
    """These embeddings cannot be reduced with this reducer."""
