"""Work that takes longer than a blink is done beside the server's loop, with a spinner."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import panel as pn
from tornado.ioloop import IOLoop

from bacpipe.errors import BacpipeError

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_PATIENCE = 300  # milliseconds before a spinner turns
# Shared by all visitors, so that many of them cannot start more threads than there are cores.
_POOL = ThreadPoolExecutor(max_workers=4, thread_name_prefix="dashboard")


def sentence_of(error: Exception) -> str:
    """What to tell a visitor about an error; unexpected ones are logged with their traceback."""
    if isinstance(error, BacpipeError):
        return str(error)
    logger.error("the dashboard could not show something", exc_info=error)
    return f"This could not be shown ({type(error).__name__}: {error}); the log says more."


class Background:
    """Computes for one page.

    Results that were overtaken by a later call with the same key are dropped.
    """

    def __init__(self) -> None:
        self._document = pn.state.curdoc
        self._newest: dict[str, object] = {}

    def run(
        self,
        key: str,
        compute: Callable[[], _T],
        show: Callable[[_T], None],
        *,
        fail: Callable[[str], None],
        busy: Any = None,
    ) -> None:
        """Compute, then show the result.

        Parameters
        ----------
        key : str
            What is computed; only the newest call of a key is shown.
        compute : callable
            Does the work; touches no widgets.
        show : callable
            Gets the result, on the page's own thread.
        fail : callable
            Gets a sentence instead if the work raises.
        busy : panel object or Spinner, optional
            Shows a spinner once it has taken 0.3 s.
        """
        ticket = object()
        self._newest[key] = ticket
        document = self._document
        if document is None or document.session_context is None:
            self._finish(compute, show, fail)  # a notebook or a test: nobody else waits
            return
        done = False

        def spin() -> None:
            if not done and self._newest.get(key) is ticket:
                busy.loading = True

        loop = IOLoop.current()

        def finished(future: Future[_T]) -> None:
            # The document must not be touched from this thread: while the server's own thread
            # collects changes of the page, a callback that is added to it can be lost.
            loop.add_callback(deliver, future)

        def deliver(future: Future[_T]) -> None:
            # Visitors may have gone meanwhile.
            if not document.session_context.destroyed:
                document.add_next_tick_callback(lambda: present(future))

        def present(future: Future[_T]) -> None:
            nonlocal done
            done = True
            if self._newest.get(key) is not ticket:
                return
            if busy is not None:
                busy.loading = False
            self._finish(future.result, show, fail)

        if busy is not None:
            document.add_timeout_callback(spin, _PATIENCE)
        _POOL.submit(compute).add_done_callback(finished)

    @staticmethod
    def _finish(
        compute: Callable[[], _T], show: Callable[[_T], None], fail: Callable[[str], None]
    ) -> None:
        try:
            show(compute())
        except Exception as error:  # a visitor's page must survive whatever one view meets
            fail(sentence_of(error))
