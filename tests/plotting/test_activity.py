"""The figure of activity over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.labels.activity import BY, Activity, Stretches, activity_grid
from bacpipe.plotting.activity import HEARD, NOTHING_HEARD, activity_maps, date_ticks, draw_activity
from bacpipe.plotting.style import save_figure
from tests.conftest import TinyModel, write_recording
from tests.plotting.test_figures import texts_overlap


def make_activity(by: str, classes: int, days: int = 40) -> Activity:
    begin = np.datetime64("2024-04-20T05:00", "us") + np.arange(days).astype("m8[D]")
    grid = activity_grid(Stretches(begin, begin + np.timedelta64(2, "h")), by)
    counts = {f"A rather long species name {i}": grid.count(begin[i:]) for i in range(classes)}
    return Activity(grid, counts, 30)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("classes", [1, 5])
def test_any_number_of_classes_can_be_read(by, classes, tmp_path):
    figure = activity_maps(make_activity(by, classes), "model")
    assert not texts_overlap(figure)
    assert f"{classes} most frequent of 30 classes" in figure.get_suptitle()
    save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_blank_nothing_heard_and_heard_look_different():
    activity = make_activity("hour_day", 3)
    axes = activity_maps(activity).axes[2]
    image = axes.get_images()[0]
    colours = image.to_rgba(image.get_array())
    blank, silent, heard = colours[0, 0], colours[5, 0], colours[5, 10]
    assert blank[:3].tolist() == [1, 1, 1]
    assert [round(255 * c) for c in silent[:3]] == [int(NOTHING_HEARD[i : i + 2], 16)
                                                    for i in (1, 3, 5)]  # fmt: skip
    assert heard.tolist() == pytest.approx(HEARD[-1].tolist())
    # Lightness alone tells them apart, so that neither colour blindness nor grey print matters.
    lightness = [float(c[:3] @ [0.2126, 0.7152, 0.0722]) for c in (blank, silent, HEARD[0])]
    assert lightness[0] - lightness[1] > 0.08 and lightness[1] - lightness[2] > 0.08


def test_dates_name_the_year_only_where_it_changes():
    begin = np.array(["2023-12-30T05:00", "2024-01-02T05:00"], "datetime64[us]")
    grid = activity_grid(Stretches(begin, begin + np.timedelta64(1, "h")))
    assert date_ticks(grid, 9) == {
        0: "30 Dec\n2023", 1: "31 Dec", 2: "1 Jan\n2024", 3: "2 Jan",
    }  # fmt: skip
    assert len(date_ticks(grid, 2)) == 2


def test_a_run_draws_it_once_and_again_when_it_is_out_of_date(tmp_path: Path):
    audio = tmp_path / "field"
    write_recording(audio / "rec_20240501_050000.wav", 3.0)
    settings = {
        "audio_dir": audio,
        "main_results_dir": tmp_path / "results",
        "models": ["tiny"],
        "CustomModels": [TinyModel],
        "device": "cpu",
        "classifier_threshold": 0.1,
    }
    loader = bacpipe.play(**settings)["tiny"]
    path = loader.paths.plot_path / "activity.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    written = path.stat().st_mtime_ns
    assert draw_activity(loader, 6) == path
    assert path.stat().st_mtime_ns == written
    draw_activity(loader, 1)
    assert path.stat().st_mtime_ns != written
    assert draw_activity(loader, 0) is None


def test_there_is_no_figure_when_recordings_tell_no_time(run):
    loader = run()
    assert draw_activity(loader, 6) is None
    assert not (loader.paths.plot_path / "activity.png").exists()
