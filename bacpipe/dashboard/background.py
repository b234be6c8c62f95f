"""Work that takes longer than a blink is done beside the server's loop, with a spinner."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import panel as pn
from bokeh.document import Document, without_document_lock

from bacpipe.errors import BacpipeError

logger = logging.getLogger(__name__)

SERVING = "dashboard"
"""Name of the threads that serve pages of `bacpipe.dashboard.server.Server`."""

_T = TypeVar("_T")
_PATIENCE = 300  # milliseconds before a spinner turns
_UNDELIVERED = 10_000  # milliseconds after which a result that is there should have been shown
# Milliseconds after a result was shown; on a busy machine Panel (1.9, 1.10) can keep back what is
# changed while it writes to the browser, until it has something else to write.
_FLUSHED = (500, 3_000)
# Shared by all visitors, so that many of them cannot start more threads than there are cores.
_POOL = ThreadPoolExecutor(max_workers=4, thread_name_prefix="dashboard")


def page_document() -> Document | None:
    """Bokeh's document of the page that is at hand; None in a notebook or a test.

    Before 3.10, Bokeh tells a notebook of the page that a server beside it is at work on.
    """
    serving = [thread for thread in threading.enumerate() if thread.name == SERVING]
    if serving and threading.current_thread() not in serving:
        return None
    document = pn.state.curdoc
    return None if document is None or document.session_context is None else document


def sentence_of(error: Exception) -> str:
    """What to tell a visitor about an error; unexpected ones are logged with their traceback."""
    if isinstance(error, BacpipeError):
        return str(error)
    logger.error("the dashboard could not show something", exc_info=error)
    return f"This could not be shown ({type(error).__name__}: {error}); the log says more."


async def beside_the_loop(make: Callable[[], _T]) -> _T:
    """What a call returns that is made in a thread, so that other visitors need not wait."""
    return await asyncio.get_running_loop().run_in_executor(_POOL, make)


class Background:
    """Computes for one page.

    Results that were overtaken by a later call with the same key are dropped.

    Parameters
    ----------
    on_page : panel object, optional
        Any part of the page, whose tags change after every result to make Panel write all that
        waits.
    """

    def __init__(self, on_page: Any = None) -> None:
        self._document = page_document()
        self._on_page = on_page
        self._flushes = 0
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
        """Compute in another thread, then show the result on the page's own.

        Parameters
        ----------
        key : str
            What is computed; only the newest call of a key is shown.
        compute : callable
            Does the work; touches no widgets.
        show, fail : callable
            Gets the result, or a sentence if the work raises.
        busy : panel object or Spinner, optional
            Shows a spinner once it has taken 0.3 s.
        """
        ticket = object()
        self._newest[key] = ticket
        document = self._document
        if document is None:
            self._finish(compute, show, fail)  # a notebook or a test: nobody else waits
            return
        done = False
        future = _POOL.submit(compute)

        def present() -> None:
            nonlocal done
            done = True
            if self._newest.get(key) is not ticket:
                return
            if busy is not None:
                busy.loading = False
            self._finish(future.result, show, fail)
            for delay in _FLUSHED if self._on_page is not None else ():
                document.add_timeout_callback(self._flush, delay)

        # Bokeh runs this on the loop of the page's own session, wherever the page was built.
        @without_document_lock
        async def deliver() -> None:
            with suppress(Exception):  # `present` asks again, and shows it
                await asyncio.wrap_future(future)
            # Visitors may have gone meanwhile.
            if (session := document.session_context) is not None and not session.destroyed:
                await session.with_locked_document(hand_over)

        # Without the lock, a callback that is added while another handler's changes are
        # collected can be lost.
        async def hand_over(locked: Document) -> None:
            locked.add_next_tick_callback(present)

        was_ready = False

        def look_after() -> None:
            """Say so, instead of turning for ever, when a result does not reach the page."""
            nonlocal was_ready
            if done or self._newest.get(key) is not ticket:
                return
            if was_ready:
                logger.error("the dashboard could not deliver %r to its page", key)
                if busy is not None:
                    busy.loading = False
                fail("This was computed, but could not be shown; reload the page.")
                return
            was_ready = future.done()
            document.add_timeout_callback(look_after, _UNDELIVERED)

        def spin() -> None:
            if not done and self._newest.get(key) is ticket:
                busy.loading = True

        document.add_next_tick_callback(deliver)
        document.add_timeout_callback(look_after, _UNDELIVERED)
        if busy is not None:
            document.add_timeout_callback(spin, _PATIENCE)

    def later(self, key: str, call: Callable[[], None], milliseconds: int) -> None:
        """Call something after a while, and once if it is asked for again meanwhile."""
        document, ticket = self._document, object()
        if document is None:
            call()
            return
        key = f"later {key}"
        self._newest[key] = ticket

        def act() -> None:
            if self._newest.get(key) is ticket:
                call()

        document.add_timeout_callback(act, milliseconds)

    def _flush(self) -> None:
        self._flushes += 1
        self._on_page.tags = [f"flush {self._flushes}"]

    @staticmethod
    def _finish(
        compute: Callable[[], _T], show: Callable[[_T], None], fail: Callable[[str], None]
    ) -> None:
        try:
            show(compute())
        except Exception as error:  # a visitor's page must survive whatever one view meets
            fail(sentence_of(error))
