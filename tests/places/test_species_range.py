"""BirdNET's range model: equal to LiteRT, strict about what it is asked, silent where it is blind.

``tests/data/range_golden.npz`` holds what LiteRT (ai-edge-litert, XNNPACK) answers for 500 random
places and weeks and 24 random classes each; ``python -m tests.places.test_species_range`` wrote it.
"""

from __future__ import annotations

import importlib.util
from datetime import date
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.commands import species as species_command
from bacpipe.errors import CheckpointError, SettingsError
from bacpipe.models.families.birdnet_range import NO_SEASON, RANGE_FILES, BirdNetRange
from bacpipe.models.weights import checkpoints
from bacpipe.places.clock import week_of
from bacpipe.places.species_range import RangeModel, not_covered, range_model

GOLDEN = Path(__file__).parents[1] / "data" / "range_golden.npz"
BASE = Path(bacpipe.settings.model_base_path)
pytestmark = pytest.mark.skipif(
    bool(checkpoints.missing_files(RANGE_FILES, BASE)), reason="the range model is not installed"
)


def weights() -> Path:
    return checkpoints.resolve(RANGE_FILES, BASE)[RANGE_FILES.files[0]]


def questions() -> np.ndarray:
    rng = np.random.default_rng(21)
    degrees = rng.uniform((-90, -180), (90, 180), (500, 2))
    weeks = rng.integers(1, 49, (500, 1))
    weeks[:25] = NO_SEASON
    return np.hstack([degrees, weeks]).astype(np.float32)


def answers_of_litert() -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(weights()))
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, [500, 3])
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, questions())
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def answers() -> np.ndarray:
    import torch

    with torch.inference_mode():
        return BirdNetRange.from_tflite(weights())(torch.tensor(questions())).numpy()


def test_answers_are_those_of_litert():
    golden = np.load(GOLDEN)
    assert np.array_equal(golden["questions"], questions())
    found = answers()
    assert np.abs(np.take_along_axis(found, golden["classes"], 1) - golden["answers"]).max() < 1e-5
    assert np.abs(found.sum(1) - golden["sums"]).max() < 1e-3
    if importlib.util.find_spec("ai_edge_litert") is not None:
        assert np.abs(found - answers_of_litert()).max() < 1e-5


def test_species_of_a_place_and_season():
    table = bacpipe.species_at(52.52, 13.40, week=20)
    assert table.columns.to_list() == ["scientific_name", "common_name", "probability"]
    assert table["probability"].is_monotonic_decreasing and table["probability"].min() >= 0.03
    assert 150 < len(table) < 180
    names = set(table["scientific_name"])
    assert {"Turdus merula", "Cuculus canorus"} <= names
    assert not {"Nucifraga columbiana", "Saltator grossus"} & names
    winter = set(bacpipe.species_at(52.52, 13.40, week=np.int64(2))["scientific_name"])
    assert "Cuculus canorus" not in winter
    assert names | winter < set(bacpipe.species_at(52.52, 13.40)["scientific_name"])


def test_classes_without_a_range_are_missing_and_never_zero():
    everything = bacpipe.species_at(44.6, -84.5, week=22, threshold=0)
    assert len(everything) == 6522
    known = everything.set_index("scientific_name")["probability"]
    missing = set(known[known.isna()].index)
    assert missing == set(not_covered()) and len(missing) == 168
    assert {"Setophaga kirtlandii", "Canis latrans", "Dog", "Engine"} <= missing
    assert not missing & set(bacpipe.species_at(44.6, -84.5)["scientific_name"])


def test_places_computed_together_are_those_computed_alone():
    rng, n = np.random.default_rng(3), 1100  # more than are computed, and remembered, at once
    weeks = [None, *rng.integers(1, 49, n - 1).tolist()]
    places = list(zip(rng.uniform(-60, 70, n), rng.uniform(-180, 180, n), weeks, strict=True))
    together, alone = RangeModel(BASE), RangeModel(BASE)
    together.prepare([*places, *places])
    for i in (0, 1, 300, n - 1):
        row, single = together.at(*places[i]), alone.at(*places[i])
        assert np.allclose(row, single, rtol=0, atol=1e-6, equal_nan=True)
        assert not row.flags.writeable and row[together.index["Turdus merula"]] >= 0


def test_weights_are_looked_for_where_the_settings_of_the_call_say(tmp_path):
    here = {"latitude": 52.5, "longitude": 13.4}
    assert len(bacpipe.species_at(**here, model_base_path=tmp_path, hop=2.0)) > 100
    for wrong, told in (({"hops": 1}, "hops"), ({"range_threshold": 7}, "range_threshold")):
        with pytest.raises(SettingsError, match=told):
            bacpipe.species_at(**here, **wrong)


def test_the_circle_of_longitudes_is_closed():
    model = range_model(BASE)
    assert np.array_equal(model.at(66, 180, 20), model.at(66, -180, 20), equal_nan=True)


@pytest.mark.parametrize(
    "asked",
    [
        {"latitude": 91}, {"latitude": -90.01}, {"longitude": 373.4}, {"longitude": -181},
        {"latitude": float("nan")}, {"longitude": float("inf")}, {"latitude": "52"},
        {"latitude": None}, {"week": 0}, {"week": 49}, {"week": -1}, {"week": 2.5},
        {"week": float("nan")}, {"week": "20"}, {"week": True}, {"threshold": 1.1},
        {"threshold": float("nan")},
    ],
)  # fmt: skip
def test_impossible_questions_are_refused(asked):
    (key,) = asked
    with pytest.raises(SettingsError, match=rf"{key}=.* is not possible; expected"):
        bacpipe.species_at(**{"latitude": 52.5, "longitude": 13.4, **asked})


def test_the_sea_off_africa_is_doubted(caplog):
    from bacpipe.places.sites import warn_of_origin

    warn_of_origin.cache_clear()
    with caplog.at_level("WARNING"):
        bacpipe.species_at(0, 0)
        bacpipe.species_at(0.0, 0.0)
    assert [record.getMessage().count("no position") for record in caplog.records] == [1]


def test_weeks_are_quarters_of_months():
    days = {date(2025, 1, 1): 1, date(2025, 1, 7): 1, date(2025, 1, 8): 2, date(2025, 5, 31): 20,
            date(2024, 2, 29): 8, date(2025, 12, 31): 48}  # fmt: skip
    assert {day: week_of(day) for day in days} == days


def test_another_file_is_no_range_model(tmp_path):
    other = weights().with_name("BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite")
    with pytest.raises(CheckpointError, match="does not hold BirdNET's range model"):
        BirdNetRange.from_tflite(other)


def test_command_prints_the_list(capsys):
    assert species_command.run(["latitude=52.52", "longitude=13.40", "week=20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("Eurasian Blackbird (Turdus merula)" in line for line in lines[:5])
    assert lines[-1].startswith(f"{len(lines) - 2} species in week 20; nothing is known of 168")
    for words, told in ((["latitude=5"], "longitude is missing"), (["lat=5"], "no key 'lat'")):
        with pytest.raises(SettingsError, match=told):
            species_command.run(words)


def test_command_takes_the_place_of_the_settings(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text("latitude: 52.52\nlongitude: 13.40\nhop: 1\n")
    assert species_command.run(["week=20"]) == 0
    here = capsys.readouterr().out
    assert species_command.run(["week=20", "latitude=52.52", "longitude=13.40"]) == 0
    assert capsys.readouterr().out == here
    assert species_command.run(["week=20", "latitude=-30"]) == 0
    assert capsys.readouterr().out != here


if __name__ == "__main__":
    reference = answers_of_litert()
    chosen = np.random.default_rng(24).integers(0, reference.shape[1], (500, 24))
    np.savez_compressed(
        GOLDEN,
        questions=questions(),
        classes=chosen.astype(np.int64),
        answers=np.take_along_axis(reference, chosen, 1),
        sums=reference.sum(1),
    )
