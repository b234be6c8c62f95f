"""Tables of detections and exports: complete, readable by others, renewed by later runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import bacpipe
from bacpipe.__main__ import main
from bacpipe.errors import ResultsNotFoundError, SettingsError
from bacpipe.exports.export import FORMATS
from tests.conftest import SHARED, TinyModel, write_recording

COLUMNS = [
    "site", "recording", "start", "end", "datetime", "common_name", "scientific_name", "code",
    "score", "range_probability", "probability", "event",
]  # fmt: skip
SCHEMAS = SHARED / "camtrap_dp"


class Birds(TinyModel):
    """A bird of Berlin, one of elsewhere, and a sound that is neither."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.classes = ["Eurasian Blackbird", "=Rain", "Field Sparrow"]
        self.scientific_names = ["Turdus merula", "", "Spizella pusilla"]
        self.codes = ["eurbla", "", "fiespa"]

    def classifier_predictions(self, embeddings):
        level = embeddings.mean(dim=1).clamp(0, 1)
        return super().classifier_predictions(embeddings)[:, [0, 1, 0]] * level.new_tensor(
            [1, 1, 0.9]
        )


def compute(card: Path, **settings: object) -> bacpipe.Loader:
    return bacpipe.generate_embeddings(
        model_name="birds",
        CustomModel=Birds,
        audio_dir=card,
        main_results_dir=str(card.parent / "results"),
        classifier_threshold=0.1,
        device="cpu",
        **settings,
    )


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "my card"
    for seed, name in enumerate(["A/20240501_053000.wav", "A/B/20240502_053000.flac"]):
        write_recording(folder / name, 4.5, seed=seed)
    (folder / "sites.csv").write_text("site,latitude,longitude\n.,52.5,13.4\n")
    return folder


@pytest.fixture(scope="module")
def birds(card: Path) -> bacpipe.Loader:
    return compute(card)


def test_tables_hold_every_detection_with_all_columns(birds: bacpipe.Loader) -> None:
    table = bacpipe.detections_table(birds)
    assert list(table.columns) == COLUMNS
    stored = sum(len(item.window) for item in birds.stored_detections())
    folder = birds.paths.preds_path
    parquet = pd.read_parquet(folder / "birds_detections.parquet")
    written = pd.read_csv(folder / "birds_detections.csv", keep_default_na=False)
    assert len(table) == len(parquet) == len(written) == stored > 10
    assert list(written.columns) == COLUMNS == [c for c in parquet if c != "window"]
    assert written["datetime"].tolist() == parquet["datetime"].tolist()
    for column in ("recording", "common_name", "scientific_name", "code", "event", "site"):
        assert table[column].tolist() == written[column].tolist() == parquet[column].tolist()
    assert written["datetime"][0] == "2024-05-01T05:30:00.000+02:00"
    assert pd.to_datetime(written["datetime"]).tolist() == table["datetime"].tolist()
    assert str(table["datetime"].dt.tz) == "Europe/Berlin"
    known = table.groupby("scientific_name")["range_probability"].mean()
    assert known["Turdus merula"] > 0.9 and known["Spizella pusilla"] < 0.03
    assert np.isnan(known[""]) and table["probability"].isna().all()


def test_settings_of_tables(birds: bacpipe.Loader, tmp_path: Path) -> None:
    hidden = bacpipe.detections_table(birds, range_filter="hide")
    assert set(hidden["common_name"]) == {"Eurasian Blackbird", "=Rain"}
    path, *_ = bacpipe.export(
        birds, "csv", tmp_path, min_score=0.3, excel_bom=True, escape_formulas=True
    )
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    table = pd.read_csv(path)
    assert "'=Rain" in set(table["common_name"]) and table["score"].min() >= 0.3
    assert json.loads((tmp_path / "provenance.json").read_text())["threshold"] == 0.3
    settings = {"audio_dir": birds.audio_dir, "model": "birds",
                "main_results_dir": birds.options.main_results_dir}  # fmt: skip
    pd.testing.assert_frame_equal(
        bacpipe.detections_table(None, **settings), bacpipe.detections_table(birds)
    )


def test_kaleidoscope_comes_back(birds: bacpipe.Loader, tmp_path: Path) -> None:
    path, *_ = bacpipe.export(birds, "kaleidoscope", tmp_path)
    table = bacpipe.import_annotations(path, birds.audio_dir, format="kaleidoscope")
    stored = bacpipe.detections_table(birds)
    rows = stored[["recording", "start", "end", "common_name"]].to_numpy()
    back = table[["audiofilename", "start", "end", "label:species"]].to_numpy()
    assert len(back) == len(rows) > 10
    assert sorted(map(tuple, back)) == sorted(map(tuple, rows))
    assert set(pd.read_csv(path)["DATE-12"]) == {"2024-04-30", "2024-05-01"}


def test_audacity_shows_scores(birds: bacpipe.Loader, tmp_path: Path) -> None:
    path, *_ = bacpipe.export(birds, "audacity", tmp_path)
    best = next(iter(birds.detections()))
    assert path.read_text().split("\n")[0].endswith(f"{best.label[0]} {best.score[0]:.2f}")


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the schemas in ../shared are absent")
def test_camtrap_dp_is_valid(birds: bacpipe.Loader, tmp_path: Path) -> None:
    frictionless = pytest.importorskip("frictionless")
    jsonschema = pytest.importorskip("jsonschema")
    *_, path = bacpipe.export(
        birds, "camtrap-dp", tmp_path, capture_method="continuous", device_platform="pole"
    )
    package = json.loads(path.read_text())
    profile = json.loads((SCHEMAS / "camtrap-dp-profile.json").read_text())
    # What lies elsewhere on the web: Data Package itself and GeoJSON.
    own = {
        key: value for key, value in profile["allOf"][1]["properties"].items() if key != "spatial"
    }
    schema = {"$defs": profile["$defs"], **profile["allOf"][1], "properties": own}
    jsonschema.Draft4Validator(schema).validate(package)
    for resource in package["resources"]:
        if isinstance(resource["schema"], str):
            name = resource["schema"].rsplit("/", 1)[1]
            assert "/1.0.2/" in resource["schema"]
            resource["schema"] = json.loads((SCHEMAS / name).read_text())
    package.pop("profile")
    report = frictionless.Package.from_descriptor(package, basepath=str(tmp_path)).validate()
    assert report.valid, report.flatten(["type", "message"])
    observed = pd.read_csv(tmp_path / "observations.csv")
    events = bacpipe.detections_table(birds, event_gap=0)
    assert len(observed) == len(events) == len(pd.read_csv(tmp_path / "acoustic-observations.csv"))
    assert set(observed["observationType"]) == {"animal", "unknown"}
    media = pd.read_csv(tmp_path / "media.csv").set_index("mediaID")
    assert len(media) == 2
    acoustic = {
        name: pd.read_csv(tmp_path / f"acoustic-{name}.csv")
        for name in ("media", "observations", "deployments")
    }
    for row in acoustic["media"].itertuples():
        recording = birds.audio_dir / media.loc[row.mediaID, "filePath"]
        assert row.samplingFrequency == sf.info(recording).samplerate
        assert row.captureMethod == "continuous"
    assert acoustic["observations"]["observationID"].tolist() == observed["observationID"].tolist()
    assert (acoustic["observations"]["frequencyLow"] == 0).all()
    nyquist = media["filePath"].map(lambda p: sf.info(birds.audio_dir / p).samplerate / 2)
    heard = observed["mediaID"].map(nyquist).clip(upper=birds.highest_frequency)
    assert acoustic["observations"]["frequencyHigh"].tolist() == heard.tolist()
    deployments = pd.read_csv(tmp_path / "deployments.csv")["deploymentID"].tolist()
    assert acoustic["deployments"]["deploymentID"].tolist() == deployments
    assert set(acoustic["deployments"]["devicePlatform"]) == {"pole"}
    with pytest.raises(SettingsError, match="capture_method='always'"):
        bacpipe.export(birds, "camtrap-dp", tmp_path, capture_method="always")


def test_numbers_of_tables_are_numbers(birds: bacpipe.Loader, tmp_path: Path) -> None:
    options = {"n": np.int64(1), "pad": np.float32(0.5), "seed": np.int32(3)}
    assert bacpipe.export(birds, "clips", tmp_path, **options)
    assert bacpipe.export(birds, "audacity", tmp_path, scores=np.bool_(False))


def test_a_title_may_be_a_number(birds: bacpipe.Loader, tmp_path: Path) -> None:
    bacpipe.export(birds, "camtrap-dp", tmp_path, title=2024)  # as YAML has it
    assert json.loads((tmp_path / "datapackage.json").read_text())["title"] == "2024"
    (path,) = bacpipe.export(birds, "darwin-core", tmp_path, title=2024, license=4.0)
    with zipfile.ZipFile(path) as archive:
        assert "<title>2024</title>" in archive.read("eml.xml").decode()


def test_what_is_no_species_is_no_occurrence(tmp_path: Path) -> None:
    class Sounds(Birds):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs)
            self.classes = ["Engine", "Human vocal", "Gryllus bimaculatus"]
            self.scientific_names = list(self.classes)

    write_recording(tmp_path / "card" / "20240501_053000.wav", 4.5)
    loader = bacpipe.generate_embeddings(
        model_name="sounds", CustomModel=Sounds, audio_dir=tmp_path / "card", device="cpu",
        main_results_dir=tmp_path / "results", classifier_threshold=0.1, latitude=52.5,
        longitude=13.4,
    )  # fmt: skip
    assert len(bacpipe.detections_table(loader)["common_name"].unique()) == 3
    (path,) = bacpipe.export(loader, "darwin-core", tmp_path)
    with zipfile.ZipFile(path) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("occurrence.csv").decode())))
    assert {row["scientificName"] for row in rows} == {"Gryllus bimaculatus"}


def test_darwin_core_archive_describes_its_table(birds: bacpipe.Loader, tmp_path: Path) -> None:
    (path,) = bacpipe.export(birds, "darwin-core", tmp_path, title="A & B", creator="Me")
    with zipfile.ZipFile(path) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("occurrence.csv").decode())))
        meta = ET.fromstring(archive.read("meta.xml"))
        eml = ET.fromstring(archive.read("eml.xml"))
    fields = meta.findall(".//{http://rs.tdwg.org/dwc/text/}field")
    assert [f.get("term", "").rsplit("/", 1)[1] for f in fields] == list(rows[0])
    assert eml.findtext("dataset/title") == "A & B" and eml.findtext(".//abstract/para")
    events = bacpipe.detections_table(birds, event_gap=0)
    assert len(rows) == (events["scientific_name"] != "").sum()
    assert len({row["occurrenceID"] for row in rows}) == len(rows)
    assert (
        rows[0]["eventDate"].startswith("2024-05-01T05:30:0") and "+02:00/" in rows[0]["eventDate"]
    )


@pytest.mark.parametrize("order", ["score", "random", "stratified"])
def test_clips_are_the_sound_around_detections(
    birds: bacpipe.Loader, tmp_path: Path, order: str
) -> None:
    *files, _ = bacpipe.export(
        birds, "clips", tmp_path, n=1, pad=0.5, order=order, clip_format="flac"
    )
    table = pd.read_csv(tmp_path / "clips.csv")
    assert len(files) == len(table) == 3  # one of each class
    for row, file in zip(table.itertuples(), files, strict=True):
        samples, rate = sf.read(file)
        whole, _ = sf.read(birds.audio_dir / row.recording)
        part = whole[round(row.clip_start * rate) : round((row.end + 0.5) * rate)]
        np.testing.assert_allclose(samples, part, atol=1e-3)
    if order == "score":
        best = bacpipe.detections_table(birds).groupby("common_name")["score"].max()
        assert table.set_index("common_name")["score"].to_dict() == pytest.approx(
            best.to_dict(), abs=1e-4
        )


def test_what_an_earlier_export_wrote_is_not_taken_for_this_one(
    birds: bacpipe.Loader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "birds_notes.csv"
    own.write_text("mine")
    all_species = bacpipe.export(birds, "occupancy", tmp_path, occasion="1D")
    one = bacpipe.export(birds, "occupancy", tmp_path, occasion="7D", species="Field Sparrow")
    tables = {path.name for path in tmp_path.glob("*.csv")}
    assert tables == {path.name for path in one} | {own.name}
    stale = {path.name.removesuffix(".stale") for path in tmp_path.glob("*.stale")}
    assert stale == {path.name for path in all_species} - {path.name for path in one}
    # Another format leaves them alone; clips, which people may have named, are only told of.
    bacpipe.export(birds, "csv", tmp_path)
    assert {path.name for path in one} <= {path.name for path in tmp_path.glob("*.csv")}
    *before, _ = bacpipe.export(birds, "clips", tmp_path / "clips", n=2)
    *after, _ = bacpipe.export(birds, "clips", tmp_path / "clips", n=1)
    assert all(path.is_file() for path in before)
    assert f"{len(before) - len(after)} files of an earlier export stay" in caplog.text


def test_exports_in_the_results_follow_the_predictions(card: Path, tmp_path: Path) -> None:
    copy = tmp_path / "card"
    shutil.copytree(card, copy)
    loader = compute(copy)
    for name in FORMATS:
        bacpipe.export(loader, name, min_score=0.2)
    write_recording(copy / "C" / "20240507_053000.wav", 3.0, seed=5)
    shutil.rmtree(copy / "A" / "B")
    again = compute(copy)
    folder = again.paths.exports_path
    for name in set(FORMATS) - {"clips"}:
        files = [p for p in (folder / name).rglob("*") if p.suffix in {".csv", ".txt", ".zip"}]
        content = "".join(
            zipfile.ZipFile(p).read("occurrence.csv").decode()
            if p.suffix == ".zip"
            else f"{p.name}\n{p.read_text()}"
            for p in files
        )
        assert "20240507_053000" in content or "2024-05-07" in content, name
        made_with = json.loads((folder / name / "birds" / "provenance.json").read_text())
        assert made_with["threshold"] == 0.2 and made_with["export"]["format"] == name
    kept = (folder / "clips" / "birds" / "clips.csv").read_text()
    assert "20240507" not in kept
    # A table of sites that changes renews the tables, too.
    (copy / "sites.csv").write_text("site,latitude,longitude\nC,40,-80\n")
    compute(copy)
    table = pd.read_csv(again.paths.preds_path / "birds_detections.csv")
    assert table[table["site"] == "C"]["datetime"].str.endswith("-04:00").all()
    assert (folder / "csv" / "birds" / "birds_detections.csv").read_text().count("-04:00") > 0
    results = [path for path in again.paths.dataset_path.rglob("*") if path.is_file()]
    assert [path for path in results if os.access(path, os.X_OK) and os.name == "posix"] == []


def test_exports_are_renewed_however_their_options_were_given(
    card: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy, elsewhere = tmp_path / "card", tmp_path / "elsewhere"
    shutil.copytree(card, copy)
    loader = compute(copy)
    (tmp_path / "places.csv").write_text("site,latitude,longitude\nC,40,-80\n")
    found = bacpipe.detections_table(loader)
    bacpipe.export(
        None, "csv", audio_dir=copy, model="birds", sites=tmp_path / "places.csv",
        main_results_dir=str(tmp_path / "results"), min_score=found["score"].min(),
    )  # fmt: skip
    bacpipe.export(loader, "occupancy", species=found["common_name"].unique())
    folder = loader.paths.exports_path
    path = folder / "survey" / "birds" / "provenance.json"
    bacpipe.export(loader, "survey")
    about = json.loads(path.read_text())
    about["export"]["options"]["destination"] = str(elsewhere)
    path.write_text(json.dumps(about))
    written = [*(folder / "csv").rglob("*.csv"), *(folder / "occupancy").rglob("*.csv")]
    before = {path: path.read_text() for path in written}
    write_recording(copy / "C" / "20240507_053000.wav", 3.0, seed=5)
    caplog.clear()
    compute(copy)
    assert [r for r in caplog.messages if "could not be renewed" in r and "survey" not in r] == []
    assert all(path.read_text() != text for path, text in before.items())
    assert "-04:00" in (folder / "csv" / "birds" / "birds_detections.csv").read_text()
    assert not elsewhere.exists()


def test_a_run_says_what_it_found_and_its_hints_work(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own list.txt").write_text("Turdus merula\nSpizella pusilla\n")
    settings = {"audio_dir": card, "species_list": "own list.txt", "models": ["birds"],
                "CustomModels": [Birds], "device": "cpu",
                "main_results_dir": "my results", "hop": 0.5}  # fmt: skip
    loader = bacpipe.play(**settings, classifier_threshold=0.3)["birds"]
    printed = capsys.readouterr().out
    count = len(bacpipe.detections_table(loader))
    assert f"birds: {count} detections of 2 species with a score of 0.3 or more: " in printed
    assert "1 species is not expected there in that season (Field Sparrow)" in printed
    assert str(loader.paths.preds_path / "birds_detections.csv") in printed
    assert printed.index("detections of") < printed.index("time spent")
    assert "hop=0.5" in printed.splitlines()[-1]
    readme = (loader.paths.dataset_path / "README.txt").read_text()
    monkeypatch.chdir(card)  # from anywhere
    commands = [line.split("bacpipe ", 1)[1] for line in readme.splitlines() if " export " in line]
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command)) == 0, command
    monkeypatch.chdir(tmp_path)
    survey = pd.read_csv(loader.paths.exports_path / "survey" / "birds" / "birds_survey.csv")
    assert set(survey["common_name"]) == {"Eurasian Blackbird", "Field Sparrow"}
    capsys.readouterr()
    bacpipe.play(**settings, classifier_threshold=1.0)
    printed = capsys.readouterr().out
    assert "no detections with a score of 1 or more in 2 recordings" in printed
    command = shlex.split(printed.split("try: ", 1)[1].splitlines()[0])
    assert {"classifier_threshold=0.25", "main_results_dir=my results"} <= {*command}


def test_mistakes_are_told(birds: bacpipe.Loader, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="did you mean 'raven'"):
        bacpipe.export(birds, "ravens")
    with pytest.raises(SettingsError, match="combine"):
        bacpipe.export(birds, "raven", combine=True)
    with pytest.raises(SettingsError, match=r"combind.*did you mean 'combined'"):
        bacpipe.export(birds, "raven", combind=True)
    for place in (birds.audio_dir / "sites.csv", birds.audio_dir / "sites.csv" / "x"):
        with pytest.raises(SettingsError, match=r"destination=.* is a file; expected a folder"):
            bacpipe.export(birds, "csv", place)
    for nothing in ("", 3):
        with pytest.raises(SettingsError, match=f"destination={nothing!r} is not possible"):
            bacpipe.export(birds, "csv", nothing)
    for format, key, value in (
        ("occupancy", "min_hours", "many"), ("occupancy", "species", 5), ("survey", "by", []),
        ("clips", "pad", "2"), ("clips", "n", True), ("clips", "seed", 1.5),
        ("raven", "combined", "no"), ("darwin-core", "title", ["a"]),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=re.escape(f"{format}: {key}={value!r} is not")):
            bacpipe.export(birds, format, birds.audio_dir.parent / "none", **{key: value})
    assert not (birds.audio_dir.parent / "none").exists()
    nowhere = bacpipe.Loader(birds.audio_dir, "none", main_results_dir=str(birds.audio_dir))
    with pytest.raises(ResultsNotFoundError):
        bacpipe.export(nowhere, "csv")
    assert main(["export", "ravens", f"audio_dir={birds.audio_dir}"]) == 2
    assert "did you mean 'raven'" in capsys.readouterr().err
