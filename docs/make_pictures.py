"""Make the pictures of the dashboard anew: ``python docs/make_pictures.py --recordings FOLDER``.

Uses the dashboard as a visitor does: it finds a species with one of its windows, gives ten labels,
teaches a recogniser and applies it, and takes pictures of all tabs on the way, at several widths
and in the dark theme.  FOLDER needs an ``annotations.csv`` in which the species is; without it,
the recordings of ``bacpipe demo`` are taken.  Needs playwright (PyPI) and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pandas as pd
from make_figures import IMAGES, MelBaseline
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import bacpipe
from bacpipe.dashboard.page import VIEWS
from bacpipe.dashboard.server import Server, open_data_set
from bacpipe.dashboard.shared.view import View

_HEIGHTS = {1280: 800, 1920: 1080, 700: 1400}
_PATIENCE = 180_000  # milliseconds
_TILES = "ul.bp-tiles li"


class Story(NamedTuple):
    """What is shown.

    Attributes
    ----------
    species : str
        What the recogniser learns.
    recording : str
        A recording in which it is heard.
    start : float
        Where, in seconds.
    """

    species: str
    recording: str
    start: float


def compute(recordings: Path, results: Path) -> None:
    """Run two models, and say what cannot be evaluated with so few annotations."""
    try:
        bacpipe.play(
            audio_dir=recordings, main_results_dir=results, models=["birdnet", "mel_baseline"],
            CustomModels=[None, MelBaseline], dim_reduction_model="umap", device="cpu",
            evaluation_task=["clustering", "probing"],
        )  # fmt: skip
    except bacpipe.errors.BacpipeError as error:
        warnings.warn(str(error), stacklevel=2)


def story_of(recordings: Path, species: str) -> Story:
    """Where the species, or else the most frequent label, is heard first."""
    table = pd.read_csv(recordings / "annotations.csv")
    label = species or str(table["label:species"].mode()[0])
    first = table[table["label:species"] == label].iloc[0]
    return Story(label, str(first["audiofilename"]), float(first["start"]))


@contextmanager
def dashboard(recordings: Path, results: Path) -> Iterator[str]:
    """Address of a dashboard."""
    server = Server(open_data_set(None, audio_dir=recordings, main_results_dir=results))
    server.start(show=False)
    try:
        yield server.url
    finally:
        server.stop()


def _file_name(view: type[View]) -> str:
    return view.title.lower().replace(" ", "_")


class Visitor:
    """Opens tabs, does what people do there, and takes pictures."""

    def __init__(self, browser: Browser, url: str, story: Story, folder: Path) -> None:
        self._browser, self._url, self._story, self._folder = browser, url, story, folder

    def teach(self) -> None:
        """Find the species, give ten labels, train, and apply, with a picture of each step."""
        page = self._open("search")
        page.get_by_placeholder("such as a species").fill(self._story.species)
        self._mark(page, range(6), "✓ is")
        self._mark(page, range(-4, 0), "✗ is not")
        self._take(page, "search")
        page.get_by_role("button", name="Select all").click()
        page.get_by_role("button", name="Review", exact=True).last.click()  # the first is the tab
        page.wait_for_function("location.search.includes('view=review')")
        self._settle(page)
        self._take(page, "review")
        page.context.close()

        page = self._open("teach", labels_from="people")
        page.get_by_role("button", name="Train", exact=True).click()
        page.get_by_text("Precision and recall at").wait_for()
        page.wait_for_selector(f"{_TILES} img[src^=data]")
        page.get_by_role("button", name="Apply to all recordings").click()
        page.get_by_text("Show them in Predictions").wait_for()
        self._settle(page)
        self._take(page, "teach")
        page.get_by_text("Show them in Predictions").click()
        self._settle(page)
        page.locator(".tabulator-row >> visible=true").last.click()
        self._settle(page)
        self._take(page, "detections")
        page.context.close()

    def look(self, width: int, theme: str) -> None:
        """Take a picture of every tab."""
        page = self._open(VIEWS[0].key, width, theme)
        for view in VIEWS:
            page.get_by_role("button", name=view.title, exact=True).first.click()
            if view is not VIEWS[0]:  # which the address need not name
                page.wait_for_function(
                    "key => location.search.includes(`view=${key}`)", arg=view.key
                )
            drawn = {"review": "[role=img]", "predictions": ".bp-count"} | dict.fromkeys(
                ("search", "teach"), ".bp-body"
            )
            part = drawn.get(view.key, ".bk-Figure")
            page.locator(part).locator("visible=true").first.wait_for()
            self._settle(page)
            self._take(page, f"{_file_name(view)}_{width}_{theme}")
        page.context.close()

    def _open(self, view: str, width: int = 1280, theme: str = "light", **query: str) -> Page:
        context = self._browser.new_context(viewport={"width": width, "height": _HEIGHTS[width]})
        context.set_default_timeout(_PATIENCE)
        page = context.new_page()
        story = self._story
        # What each tab takes of the address.
        query = {
            "recording": story.recording, "start": str(story.start),
            "like": f'[["{story.recording}", {story.start}]]', "count": "24",
            "species": story.species, "label": story.species if view == "review" else "", **query,
        }  # fmt: skip
        if theme == "dark":
            query["theme"] = "dark"
        page.goto(f"{self._url}/?{urlencode({'view': view, **query})}")
        self._settle(page)
        return page

    def _settle(self, page: Page) -> None:
        page.wait_for_selector(".bp-brand")
        for _ in range(3):  # what a visitor sees first asks for more
            _wait(page, lambda: _is_drawn(page), "the page was never drawn")
            page.wait_for_timeout(2000)

    def _mark(self, page: Page, which: range, button: str) -> None:
        page.get_by_role("button", name="None", exact=True).click()
        for place in which:
            page.locator(f"{_TILES} input").nth(place).check()
        before = page.locator(f"{_TILES} .mark:not(:empty)").count()
        page.get_by_role("button", name=button).click()
        said = page.locator(f"{_TILES} .mark:not(:empty)")
        wanted = before + len(which)
        _wait(page, lambda: said.count() >= wanted, f"{button}: the labels did not appear")

    def _take(self, page: Page, name: str) -> None:
        page.mouse.move(0, 0)
        page.screenshot(path=self._folder / f"{name}.png")


def _is_drawn(page: Page) -> bool:
    """Whether nothing turns, and every picture that is to be seen is there."""
    shown = page.locator("img >> visible=true")
    return (
        not page.locator(".bp-turning >> visible=true").count()
        and bool(shown.evaluate_all("images => images.every((image) => image.complete)"))
        and page.locator("canvas, table, .tabulator, .bp-tiles").locator("visible=true").count() > 0
    )


def _wait(page: Page, done: Callable[[], bool], sentence: str) -> None:
    end = time.monotonic() + _PATIENCE / 1000
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(sentence)
        page.wait_for_timeout(200)


def keep(picture: Image.Image, name: str, width: int) -> None:
    """Store a picture with as many colours as it needs, which makes it a quarter of the size."""
    height = round(picture.height * width / picture.width)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    for colours in (256, 192):
        few = small.quantize(colours, dither=Image.Dither.NONE)
        few.save(IMAGES / f"dashboard_{name}.png", optimize=True)
        if (IMAGES / f"dashboard_{name}.png").stat().st_size < 200_000:
            return


def sheet(folder: Path, width: int, theme: str, *, columns: int, each: int) -> Image.Image:
    """All tabs beside one another."""
    titles = [_file_name(view) for view in VIEWS]
    pictures = [Image.open(folder / f"{name}_{width}_{theme}.png") for name in titles]
    high = round(each * pictures[0].height / pictures[0].width)
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (each + 8) - 8, rows * (high + 8) - 8), "#9aa5b1")
    for place, picture in enumerate(pictures):
        small = picture.convert("RGB").resize((each, high), Image.Resampling.LANCZOS)
        whole.paste(small, ((place % columns) * (each + 8), place // columns * (high + 8)))
    return whole


def strip(folder: Path) -> Image.Image:
    """The way from one call to detections: find, mark, teach, detections."""
    pictures = [Image.open(folder / f"{name}.png").convert("RGB")
                for name in ("search", "review", "teach", "detections")]  # fmt: skip
    wide, high = 800, 500
    whole = Image.new("RGB", (2 * wide + 8, 2 * high + 8), "#9aa5b1")
    for place, picture in enumerate(pictures):
        small = picture.resize((wide, high), Image.Resampling.LANCZOS)
        whole.paste(small, ((place % 2) * (wide + 8), place // 2 * (high + 8)))
    return whole


def main() -> None:
    """Compute, visit, and keep the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, help="with annotations.csv")
    parser.add_argument("--species", default="", help="label of annotations.csv")
    parser.add_argument(
        "--folder", type=Path, help="keeps results, which are taken if they are there, and pictures"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        recordings = options.recordings or bacpipe.make_demo(folder / "recordings")
        if not (folder / "results").is_dir():
            compute(recordings, folder / "results")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=["--no-sandbox"],
        )
        # A copy, so that every time begins without labels.
        results = Path(shutil.copytree(folder / "results", Path(temporary) / "visited"))
        with dashboard(recordings, results) as url:
            visitor = Visitor(browser, url, story_of(recordings, options.species), folder)
            visitor.teach()
            for width, theme in ((1280, "light"), (1280, "dark"), (1920, "light"), (700, "light")):
                visitor.look(width, theme)
        browser.close()
        IMAGES.mkdir(exist_ok=True)
        for view in VIEWS:
            name = _file_name(view)
            taken = folder / f"{name}.png"  # with what was done there
            if not taken.exists():
                taken = folder / f"{name}_1280_light.png"
            keep(Image.open(taken), name, 1280)
        keep(strip(folder), "loop", 1280)
        keep(sheet(folder, 1280, "dark", columns=3, each=560), "dark", 1280)
        keep(sheet(folder, 1920, "light", columns=3, each=560), "wide", 1280)
        keep(sheet(folder, 700, "light", columns=5, each=350), "narrow", 1280)


if __name__ == "__main__":
    main()
