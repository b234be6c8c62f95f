"""Products of 8-bit integers, which processors compute several times faster than floats."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_EXACT = 1024  # products of two int8 whose sum float32 holds exactly, in any order


def integer_products(few: Tensor, many: Tensor) -> Tensor:
    """Exact products of a few rows of small whole numbers with many others.

    Parameters
    ----------
    few : Tensor, int8, shape (m, dim)
        Not below -127.
    many : Tensor, int8, shape (n, dim)

    Returns
    -------
    Tensor, int32, shape (m, n)
    """
    # A copy, because PyTorch (2.14) computes wrong products of a single row that says it is a
    # column.
    rows = torch.empty(few.shape, dtype=torch.int8).copy_(few)
    if _int_mm_works(*rows.shape):
        return torch._int_mm(rows, many.T)
    return _in_pieces(rows, many.T)


def _in_pieces(rows: Tensor, columns: Tensor) -> Tensor:
    """The same with floats, a piece at a time, so that every sum is exact."""
    total = torch.zeros(rows.shape[0], columns.shape[1], dtype=torch.int32)
    for first in range(0, rows.shape[1], _EXACT):
        part = slice(first, first + _EXACT)
        total += (rows[:, part].float() @ columns[part].float()).to(torch.int32)
    return total


@functools.cache
def _int_mm_works(few: int, dim: int) -> bool:
    """Whether PyTorch's product of integers, which is private, is there and right.

    Instructions of some processors saturate: large numbers of one sign are tried, too.
    """
    generator = torch.Generator().manual_seed(0)
    trials = [
        (
            torch.randint(-127, 128, (few, dim), generator=generator, dtype=torch.int8),
            torch.randint(-128, 128, (many, dim), generator=generator, dtype=torch.int8),
        )
        for many in (1, 67)
    ]
    trials += [
        (
            torch.full((few, dim), row, dtype=torch.int8),
            torch.full((67, dim), column, dtype=torch.int8),
        )
        for row, column in ((127, -128), (127, 127), (-127, -128))
    ]
    try:
        works = all(torch.equal(torch._int_mm(a, b.T), _in_pieces(a, b.T)) for a, b in trials)
    except (AttributeError, RuntimeError, TypeError) as error:
        logger.info("products of integers are computed with floats here (%s).", error)
        return False
    if not works:
        logger.info("products of integers are computed with floats: PyTorch's are wrong here.")
    return works
