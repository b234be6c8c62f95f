"""Opens the dashboard again and again on a busy machine, and says whether a page stayed white.

Each load is a visitor of its own, with an empty cache, while other processes keep the processors
busy.  Predictions is the tab that reads most: a load counts as drawn when its list of species, its
histogram, its heat map and its list of detections show something.

    python benchmarks/page_loads.py --windows 60000 --folder /tmp/page_loads --loads 100 --load 8

The data set is made as `benchmarks/dashboard.py` makes it.  Needs playwright (PyPI) and Chromium
(Debian's package).  Ends with code 1 if a page stayed white or the browser complained.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import Process
from pathlib import Path
from typing import Any

import numpy as np
from dashboard import CHROMIUM_ARGUMENTS, make_data_set, served
from playwright.sync_api import Error, Page, sync_playwright

# How many canvases have something on them.
INKED = """
(canvases) => canvases.filter((canvas) => {
  if (!canvas.width || !canvas.height) return false;
  const pixels = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; pixels && i < pixels.length; i += 4 * 101) {
    colours.add(`${pixels[i]},${pixels[i + 1]},${pixels[i + 2]}`);
  }
  return colours.size > 3;
}).length
"""


def _turn() -> None:
    while True:
        sum(range(100_000))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep processors busy meanwhile."""
    started = [Process(target=_turn, daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()


def missing_of(page: Page) -> str:
    """What is not drawn yet; empty when all is there."""
    rows = page.locator(".tabulator-row >> visible=true").count()
    pictures = page.locator("canvas >> visible=true").evaluate_all(INKED)
    missing = [f"rows of the lists ({rows})"] if rows < 11 else []
    missing += [f"histogram and heat map ({pictures})"] if pictures < 2 else []
    return ", ".join(missing)


def load(browser: Any, url: str, patience: float) -> tuple[float, str, list[str]]:
    """Seconds until all is drawn, what is missing, and what the browser complained about."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    begin, missing = time.perf_counter(), "all"
    try:
        page.goto(url, timeout=1000 * patience)
        while missing and time.perf_counter() < begin + patience:
            page.wait_for_timeout(250)
            missing = missing_of(page)
    except Error as error:
        complaints.append(str(error))
    seconds = time.perf_counter() - begin
    if missing:
        page.screenshot(path=f"white_{os.getpid()}_{begin:.0f}.png")
    context.close()
    return seconds, missing, complaints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=60_000)
    parser.add_argument("--dimension", type=int, default=64, help="of the embeddings")
    parser.add_argument("--folder", type=Path, required=True, help="kept for the next time")
    parser.add_argument("--loads", type=int, default=100)
    parser.add_argument("--load", type=int, default=8, help="processes that do nothing but turn")
    parser.add_argument("--view", default="predictions")
    parser.add_argument("--patience", type=float, default=120, help="seconds")
    options = parser.parse_args()
    audio, results = make_data_set(options.folder, options.windows, options.dimension)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    seconds, bad = [], 0
    with ExitStack() as stack:
        url = stack.enter_context(served(audio, results))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        stack.callback(browser.close)
        stack.enter_context(busy(options.load))
        for number in range(options.loads):
            took, missing, complaints = load(
                browser, f"{url}/?view={options.view}", options.patience
            )
            seconds.append(took)
            if missing or complaints:
                bad += 1
                print(f"load {number}: missing {missing or 'nothing'}; {complaints}", flush=True)
        average = os.getloadavg()[0]
    print(
        f"{options.loads} loads with a load of {average:.0f}: {bad} blank or with complaints; "
        f"drawn after {np.median(seconds):.1f} s (median), {max(seconds):.1f} s (longest)"
    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
