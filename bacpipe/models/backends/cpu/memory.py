"""Memory that a network frees stays with the process, for its next layer.

This concerns all of a process, so only our command line calls it, never the library.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

# Names and numbers of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_TRIM = 256 << 20
# The largest that glibc accepts.
_MMAP = 32 << 20
_VARIABLES = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX"}


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library of Linux keep what is freed, for the rest of the process.

    Layers on a CPU allocate and free tens of megabytes each.  glibc returns such blocks to the
    system, depending on what lies beside them, and gets them back one zeroed page of 4 KiB at a
    time: up to a third of the time of a network of many small layers.  The heaps of single
    threads, of 64 MiB at most, it returns in any case, so threads that start from now on share
    the one of the process.  A process may be larger by up to 256 MiB for this after its peak, but
    not at it.  Who sets one of the variables below in the environment has chosen already.

    Returns
    -------
    bool
        Whether it was set; elsewhere than with glibc there is nothing to set.
    """
    if platform.libc_ver()[0] != "glibc" or _VARIABLES & os.environ.keys():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_M_MMAP_THRESHOLD: _MMAP, _M_TRIM_THRESHOLD: _TRIM, _M_ARENA_MAX: 1}
    return all(mallopt(option, value) for option, value in settings.items())
