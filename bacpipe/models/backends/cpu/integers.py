"""Products of 8-bit integers, which processors compute several times faster than floats."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_EXACT = 1024  # products of two int8 whose sum float32 holds exactly, in any order


def integer_products(rows: Tensor, columns: Tensor) -> Tensor:
    """Exact product of two matrices of small whole numbers.

    Parameters
    ----------
    rows : Tensor, int8, shape (n, dim)
    columns : Tensor, int8, shape (dim, m)
        Not below -127.

    Returns
    -------
    Tensor, int32, shape (n, m)
    """
    if _int_mm_works(rows.shape[1], columns.shape[1]):
        return torch._int_mm(rows, columns)
    return _in_pieces(rows, columns)


def _in_pieces(rows: Tensor, columns: Tensor) -> Tensor:
    """The same with floats, a piece at a time, so that every sum is exact."""
    total = torch.zeros(rows.shape[0], columns.shape[1], dtype=torch.int32)
    for first in range(0, rows.shape[1], _EXACT):
        part = slice(first, first + _EXACT)
        total += (rows[:, part].float() @ columns[part].float()).to(torch.int32)
    return total


@functools.cache
def _int_mm_works(dim: int, columns: int) -> bool:
    """Whether PyTorch's product of integers, which is private, is there and right.

    Instructions of some processors saturate: large numbers of one sign are tried, too.
    """
    generator = torch.Generator().manual_seed(0)
    trials = [
        (
            torch.randint(-128, 128, (67, dim), generator=generator, dtype=torch.int8),
            torch.randint(-127, 128, (dim, columns), generator=generator, dtype=torch.int8),
        ),
        *(
            (
                torch.full((67, dim), row, dtype=torch.int8),
                torch.full((dim, columns), column, dtype=torch.int8),
            )
            for row, column in ((-128, 127), (127, 127), (-128, -127))
        ),
    ]
    try:
        works = all(torch.equal(torch._int_mm(a, b), _in_pieces(a, b)) for a, b in trials)
    except (AttributeError, RuntimeError, TypeError) as error:
        logger.info("products of integers are computed with floats here (%s).", error)
        return False
    if not works:
        logger.info("products of integers are computed with floats: PyTorch's are wrong here.")
    return works
