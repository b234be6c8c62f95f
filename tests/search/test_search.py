"""Searching through the public function and the command line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

import bacpipe
from bacpipe.__main__ import main
from bacpipe.dashboard.shared.clips import read_clip
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import AudioError, BacpipeError, ResultsError, ResultsNotFoundError
from bacpipe.search.find import save_clips
from bacpipe.search.index import SearchIndex
from bacpipe.user_input import quoted
from tests.conftest import SHARED, TinyModel, needs_shared_audio, write_recording
from tests.search.conftest import cosines

FIRST = "A/r_20240601_043000.wav"


class Words(TinyModel):
    """Understands words: the embedding of a text is that of a level."""

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor(
            [[float("rising" in text) * i + 1 for i in range(10)] for text in texts]
        )


class Recogniser:
    """Two classes as linear functions of embeddings."""

    def __init__(self, dim: int = 10, model: str = "tiny") -> None:
        self.classes = ["rising", "falling"]
        slope = np.linspace(-1, 1, dim)
        self.weight = np.stack([slope, -2 * slope])
        self.bias = np.array([0.5, -0.25])
        self.model = model

    def check(self, loader: bacpipe.Loader) -> None:
        if loader.model_name != self.model:
            raise BacpipeError(f"embeddings of {self.model}, not of {loader.model_name}")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "field"
    write_recording(folder / FIRST, 8.0, seed=1)
    write_recording(folder / "A" / "r_20240601_225958.wav", 8.0, seed=2)
    write_recording(folder / "B" / "r_20240602_043000.wav", 8.0, seed=3)
    write_recording(folder / "untimed.wav", 4.0, seed=4)
    return folder


@pytest.fixture(scope="module")
def loader(audio: Path) -> bacpipe.Loader:
    return bacpipe.generate_embeddings(
        audio_dir=audio,
        main_results_dir=audio.parent / "results",
        CustomModel=TinyModel,
        model_name="tiny",
        device="cpu",
        classifier_threshold=0.3,
    )


def found(loader: bacpipe.Loader, query: object, **settings: object) -> pd.DataFrame:
    return bacpipe.search(query, loader=loader, **settings)


def test_the_table(loader: bacpipe.Loader) -> None:
    table = found(loader, (FIRST, 3), k=100)
    assert table.columns.to_list() == [
        "rank", "similarity", "recording", "site", "start", "end", "datetime", "label", "score",
        "range_probability",
    ]  # fmt: skip
    assert len(table) == 28  # all that there are
    first = table.iloc[0]
    assert (first["recording"], first["start"], first["end"]) == (FIRST, 3.0, 4.0)
    assert (first["site"], first["datetime"]) == ("A", pd.Timestamp("2024-06-01T04:30:03"))
    assert first["similarity"] == pytest.approx(1, abs=1e-12)
    assert table["similarity"].is_monotonic_decreasing
    untimed = table[table["recording"] == "untimed.wav"]
    assert untimed["datetime"].isna().all() and len(untimed) == 4
    best = loader.predictions("dataframe").set_index(["audiofilename", "start"])
    for _, row in table.iterrows():
        scores = best.loc[(row["recording"], row["start"]), ["loud", "quiet"]]
        assert row["score"] == pytest.approx(scores.max())
        assert row["label"] == scores.idxmax()


def test_the_name_search_stays_a_function() -> None:
    import bacpipe.search.index

    assert type(bacpipe.search).__name__ == "function"
    assert sys.modules["bacpipe.search"] is not bacpipe.search


def test_a_clip_is_embedded_as_the_recordings_were(loader: bacpipe.Loader, audio: Path) -> None:
    model = {"CustomModel": TinyModel}
    table = found(loader, audio / FIRST, start=3, end=4, k=3, **model)
    pd.testing.assert_frame_equal(table, found(loader, (FIRST, 3), k=3))
    # A short sound is taken with what is around it: from 3 to 4 s.
    short = found(loader, str(audio / FIRST), start=3.4, end=3.6, k=3, **model)
    assert short["similarity"].to_list() == pytest.approx(table["similarity"].to_list(), abs=1e-6)
    # At the end of a recording, what is before.
    last = found(loader, FIRST, start=7.9, k=1, **model)
    assert (last["recording"][0], last["start"][0]) == (FIRST, 7.0)
    # The mean of several windows.
    rows = loader.read_embedding_file(FIRST)[2:5].astype(float)
    mean = (rows / np.linalg.norm(rows, axis=1)[:, None]).mean(axis=0)
    long = found(loader, FIRST, start=2, end=5, **model)
    expected = np.sort(cosines(loader.embeddings("array"), mean))[::-1]
    np.testing.assert_allclose(long["similarity"], expected, atol=1e-6)


def test_a_clip_shorter_than_a_window_is_padded_and_said_to_be(
    loader: bacpipe.Loader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_recording(tmp_path / "short.wav", 0.4)
    table = found(loader, clip, CustomModel=TinyModel, k=2)
    assert "short.wav: is 0.4 s long, less than a window of tiny (1 s)" in caplog.text
    row = bacpipe.Embedder("tiny", CustomModel=TinyModel, device="cpu").get_embeddings_from_model(
        clip
    )
    pd.testing.assert_frame_equal(table, found(loader, row[0], k=2))


def test_examples_for_and_against(loader: bacpipe.Loader) -> None:
    rows = loader.embeddings("array").astype(float)
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    names = list(loader.entries)
    first = {
        name: sum(loader.entries[n].windows for n in names[:i]) for i, name in enumerate(names)
    }
    positives = [(FIRST, 1), rows[first["untimed.wav"] + 2]]
    negatives = [("untimed.wav", 0)]
    wanted = (unit[first[FIRST] + 1] + unit[first["untimed.wav"] + 2]) / 2
    truth = np.sort(cosines(rows, wanted - unit[first["untimed.wav"]]))[::-1]
    for query in ((positives, negatives), {"positives": positives, "negatives": negatives}):
        np.testing.assert_allclose(found(loader, query)["similarity"], truth, atol=1e-9)
    alone = found(loader, positives)["similarity"]  # the mean window takes the others' place
    truth = np.sort(cosines(rows, wanted - unit.mean(axis=0)))[::-1]
    np.testing.assert_allclose(alone, truth, atol=0.02)  # the mean is of the codes
    assert set(found(loader, positives, exclude_same_recording=True)["recording"]) == {
        name for name in names if name != FIRST
    }


def test_recognisers_give_their_logits(loader: bacpipe.Loader) -> None:
    recogniser = Recogniser()
    table = found(loader, recogniser, k=4)
    logits = loader.embeddings("array") @ recogniser.weight.T + recogniser.bias
    for i, name in enumerate(recogniser.classes):
        one = table[table["query"] == name]
        np.testing.assert_allclose(one["similarity"], np.sort(logits[:, i])[::-1][:4], atol=1e-9)
    with pytest.raises(BacpipeError, match=r"embeddings of birdnet, not of tiny"):
        found(loader, Recogniser(model="birdnet"))
    with pytest.raises(BacpipeError, match=r"shape \(2, 7\); expected \(2, 10\)"):
        found(loader, Recogniser(dim=7))


def test_recognisers_on_square_roots_give_their_logits_too(loader: bacpipe.Loader) -> None:
    recogniser = Recogniser()
    recogniser.square_roots = True
    rows = loader.embeddings("array")
    logits = np.sqrt(np.maximum(rows, 0)) @ recogniser.weight.T + recogniser.bias
    for k in (1, 4, len(rows)):
        table = found(loader, recogniser, k=k)
        for i, name in enumerate(recogniser.classes):
            one = table[table["query"] == name]["similarity"]
            np.testing.assert_allclose(one, np.sort(logits[:, i])[::-1][:k], atol=1e-6)
    # Some recordings only, and no two windows within two seconds.
    names = list(loader.entries)
    first = sum(loader.entries[n].windows for n in names[: names.index(FIRST)])
    own = logits[first : first + loader.entries[FIRST].windows, 0]
    table = found(loader, recogniser, k=3, where={"recording": FIRST})
    one = table[table["query"] == "rising"]
    assert set(one["recording"]) == {FIRST}
    np.testing.assert_allclose(one["similarity"], np.sort(own)[::-1][:3], atol=1e-6)
    spread = found(loader, recogniser, k=2, where={"recording": FIRST}, min_gap=2.0)
    starts = spread[spread["query"] == "rising"]["start"].to_numpy()
    assert len(starts) == 2 and abs(starts[0] - starts[1]) >= 2
    assert spread["similarity"].iloc[0] == pytest.approx(own.max(), abs=1e-6)


def test_a_search_by_square_roots_tells_of_embeddings_that_are_not_those_of_the_run(
    audio: Path, tmp_path: Path
) -> None:
    made = bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, audio_dir=audio, main_results_dir=tmp_path,
        device="cpu",
    )  # fmt: skip
    recogniser = Recogniser()
    recogniser.square_roots = True
    assert len(found(made, recogniser))
    path = made.get_embedding_dir() / made.entries[FIRST].embeddings.path
    kept = np.load(path)
    for wrong in (np.zeros_like(kept), np.full_like(kept, np.nan), kept[:, :7], kept[:3]):
        np.save(path, wrong)
        with pytest.raises(BacpipeError, match=path.name):
            found(made, recogniser)
    np.save(path, kept)
    assert len(found(made, recogniser))


def test_words(loader: bacpipe.Loader) -> None:
    embedder = bacpipe.Embedder("tiny", CustomModel=Words, device="cpu")
    table = found(loader, "a rising sound", embedder=embedder, k=28)
    query = np.arange(1, 11)
    truth = np.sort(cosines(loader.embeddings("array"), query))[::-1]
    np.testing.assert_allclose(table["similarity"], truth, atol=1e-9)
    with pytest.raises(BacpipeError, match=r"tiny does not understand words.*biolingual"):
        found(loader, "a rising sound", CustomModel=TinyModel)


@pytest.mark.parametrize(
    ("where", "windows"),
    [
        ({"site": "A"}, 16),
        ({"site": ["B", "."]}, 12),
        ({"recording": FIRST}, 8),
        ({"date": "2024-06-01"}, 16),
        ({"date": ("2024-06-02", None)}, 8),
        ({"date": "2024-06-01..2024-06-02"}, 24),
        ({"hour": 4}, 16),
        ({"hour": 23}, 6),  # of a recording that begins two seconds before
        ({"hour": (22, 4)}, 8),
        ({"hour": "22..4", "site": "A"}, 8),
        ({"hour": (4.5, 4.50084)}, 8),  # the windows from 4:30:00 to 4:30:03
        ({"hour": 12}, 0),
        ({"site": "nowhere"}, 0),
    ],
)
def test_where(where: dict[str, object], windows: int, loader: bacpipe.Loader) -> None:
    everything = found(loader, (FIRST, 3), k=100)
    table = found(loader, (FIRST, 3), k=100, where=where)
    assert len(table) == windows
    rest = everything.merge(table[["recording", "start"]])
    pd.testing.assert_frame_equal(rest.drop(columns="rank"), table.drop(columns="rank"))


def test_where_the_table_of_sites_says_something(
    run: Callable[..., bacpipe.Loader], recordings: Path
) -> None:
    (recordings / "sites.csv").write_text(
        "site,latitude,longitude,time_zone,habitat\n"
        "north,52.5,13.4,Europe/Berlin,wood\nsouth,48.1,11.6,Europe/Berlin,marsh\n"
    )
    loader = run(range_filter="off")
    table = found(loader, ("top.wav", 0), where={"habitat": "marsh"})
    assert set(table["recording"]) == {"south/a.wav", "south/c.flac"}
    assert set(table["site"]) == {"south"}
    table = found(loader, ("top.wav", 0), where={"latitude": (50, None)})
    assert set(table["recording"]) == {"north/a.wav", "north/b.wav"}
    with pytest.raises(BacpipeError, match=r"did you mean 'habitat'\?"):
        found(loader, ("top.wav", 0), where={"habitats": "marsh"})


def test_where_something_was_predicted(loader: bacpipe.Loader) -> None:
    wide = loader.predictions("dataframe")
    for where, count in (
        ({"label": "loud"}, (wide["loud"] > 0).sum()),
        ({"label": ["loud"], "score": 0.4}, (wide["loud"] >= np.float32(0.4)).sum()),
        ({"label": "quiet", "score": (0.4, 0.6)}, wide["quiet"].between(0.4, 0.6).sum()),
    ):
        table = found(loader, (FIRST, 3), k=100, where=where)
        assert 0 < len(table) == count < 28
    with pytest.raises(BacpipeError, match=r"tiny knows no such class; did you mean 'loud'\?"):
        found(loader, (FIRST, 3), where={"label": "lout"})


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"habitat": "wood"}, r"'habitat'.*no such column; expected one of recording, site, date"),
        ({"sites": "A"}, r"did you mean 'site'\?"),
        ({"hour": 24}, r"expected an hour from 0 to 23"),
        ({"hour": "noon"}, r"expected an hour from 0 to 23"),
        ({"date": "in May"}, r"'in May' is no day"),
        ({"score": "high"}, r"is no range"),
        ({"date": ("2024-05-01",)}, r"is no day"),
    ],
)
def test_conditions_that_are_not_understood(where, message, loader: bacpipe.Loader) -> None:
    with pytest.raises(BacpipeError, match=message):
        found(loader, (FIRST, 3), where=where)


def test_neighbouring_windows_are_one_result(loader: bacpipe.Loader) -> None:
    everything = found(loader, (FIRST, 3), k=100)
    kept: list[tuple[str, float]] = []
    for recording, start in zip(everything["recording"], everything["start"], strict=True):
        if all(recording != r or abs(start - s) >= 3 for r, s in kept):
            kept.append((recording, start))
    for k in (2, 5, 100):
        table = found(loader, (FIRST, 3), k=k, min_gap=3)
        assert list(zip(table["recording"], table["start"], strict=True)) == kept[:k]


@pytest.mark.parametrize(
    ("query", "settings", "error", "message"),
    [
        (np.ones(7), {}, BacpipeError, r"shape \(7,\), but embeddings of tiny have 10 values"),
        (np.zeros(10), {}, BacpipeError, r"the query is zero"),
        (np.full(10, np.nan), {}, BacpipeError, r"not numbers"),
        (("A/r_20240601_04300.wav", 1), {}, ResultsNotFoundError, rf"did you mean {FIRST}\?"),
        ((FIRST, 99), {}, ResultsNotFoundError, r"no window at 99 s; .* from 0 to 8 s"),
        ((FIRST, -1), {}, ResultsNotFoundError, r"no window at -1 s"),
        ("clip.wav", {}, ResultsNotFoundError, r"clip.wav: there is no such recording"),
        (FIRST, {"start": 9}, BacpipeError, r"start=9 and end=None name no part of it"),
        (FIRST, {"start": 3, "end": 2}, BacpipeError, r"start=3 and end=2 name no part"),
        ((FIRST, 1), {"start": 3}, BacpipeError, r"start and end belong to the path of a clip"),
        ([], {}, BacpipeError, r"no positive example"),
        ({"positive": [(FIRST, 1)]}, {}, BacpipeError, r"expected positives and negatives"),
        (None, {}, BacpipeError, r"None is no query"),
        ((FIRST, 1), {"k": 0}, BacpipeError, r"k=0 is not possible"),
        ((FIRST, 1), {"min_gap": -1}, BacpipeError, r"min_gap=-1 is not possible"),
    ],
)
def test_queries_that_are_none(query, settings, error, message, loader: bacpipe.Loader) -> None:
    with pytest.raises(error, match=message):
        found(loader, query, **{"CustomModel": TinyModel, **settings})


def test_a_silent_clip(loader: bacpipe.Loader, tmp_path: Path) -> None:
    sf.write(tmp_path / "silence.wav", np.zeros(16000), 8000)
    with pytest.raises(AudioError, match=r"silence.wav: is silent there"):
        found(loader, tmp_path / "silence.wav", CustomModel=TinyModel)


def test_a_clip_for_another_state_of_the_model(loader: bacpipe.Loader, audio: Path) -> None:
    class Changed(TinyModel):
        version = "2"

    with pytest.raises(BacpipeError, match=r"tiny is not what these embeddings were made with"):
        found(loader, audio / FIRST, start=3, CustomModel=Changed)
    with pytest.raises(BacpipeError, match=r"a model of your own.*CustomModel"):
        found(loader, audio / FIRST, start=3)


def test_recordings_that_are_new_changed_or_gone(
    run: Callable[..., bacpipe.Loader], recordings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = run()
    write_recording(recordings / "new.wav", 3.0, seed=9)
    with pytest.raises(ResultsNotFoundError, match=r"new.wav: has no embeddings of tiny yet"):
        found(loader, ("new.wav", 1))
    index = SearchIndex(loader)
    run()
    assert found(index, ("new.wav", 1), k=1)["recording"][0] == "new.wav"
    write_recording(recordings / "new.wav", 3.0, seed=10)
    with pytest.raises(ResultsError, match=r"new.wav: has changed since it was embedded"):
        found(index, ("new.wav", 1))
    found(index, ("top.wav", 0))
    assert "1 recording of these have changed" in caplog.text or "changed since" in caplog.text
    shutil.rmtree(recordings)  # the results are enough
    assert len(found(loader, ("top.wav", 0), k=100)) == 18


def test_damaged_embeddings_are_named(run: Callable[..., bacpipe.Loader]) -> None:
    loader = run()
    path = loader.get_embedding_dir() / "top_tiny.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(ResultsError, match=r"top_tiny.npy: these embeddings are damaged"):
        found(loader, np.ones(10))
    path.write_bytes(content)
    assert len(found(loader, np.ones(10))) == 15
    path.unlink()
    with pytest.raises(ResultsError, match=r"top_tiny.npy: these embeddings are gone"):
        found(loader, np.ones(10))


def test_nothing_to_search(tmp_path: Path, recordings: Path) -> None:
    settings = {"main_results_dir": tmp_path / "results"}
    with pytest.raises(BacpipeError, match=r"there are no embeddings"):
        bacpipe.search("clip.wav", recordings, **settings)
    with pytest.raises(BacpipeError, match=r"there are no embeddings of birdnet"):
        bacpipe.search("clip.wav", recordings, "birdnet", **settings)
    with pytest.raises(BacpipeError, match=r"audio_dir is missing"):
        bacpipe.search("clip.wav", **settings)


@needs_shared_audio
def test_the_command_finds_the_other_calls_of_a_cuckoo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHARED / "audio" / "birds" / "FewShot", tmp_path / "birds")
    words = ["audio_dir=birds", "device=cpu"]
    assert main([*words, "models=birdnet"]) == 0
    names = sorted(p.relative_to("birds").as_posix() for p in Path("birds").rglob("*.wav"))
    (cuckoo,) = [name for name in names if "CHE_02" in name]
    capsys.readouterr()
    done = main(
        ["search", f"birds/{cuckoo}", "start=0", "end=3", *words, "k=5", "min_gap=3",
         "--csv", "found.csv", "--clips", "clips"]
    )  # fmt: skip
    assert done == 0
    table = pd.read_csv("found.csv")
    assert len(table) == 5 and table["recording"][0] == cuckoo
    assert "similarity" in capsys.readouterr().out
    clips = sorted(Path("clips").iterdir())
    assert [sf.info(clip).duration for clip in clips] == pytest.approx(
        (table["end"] - table["start"]).to_list(), abs=1e-3
    )
    assert main(["search", "no such sound", *words]) == 2
    assert "birdnet does not understand words" in capsys.readouterr().err


@pytest.mark.parametrize("channel", ["right", "each"])
def test_clips_and_the_player_give_what_was_heard(tmp_path: Path, channel: str) -> None:
    sides = [np.random.default_rng(seed).uniform(-0.5, 0.5, 4 * 8000) for seed in (1, 2)]
    (tmp_path / "audio").mkdir()
    sf.write(tmp_path / "audio" / "both.wav", np.stack(sides, axis=1), 8000)
    loader = bacpipe.generate_embeddings(
        audio_dir=tmp_path / "audio", model_name="tiny", CustomModel=TinyModel, device="cpu",
        main_results_dir=tmp_path / "results", channel=channel,
    )  # fmt: skip
    query = loader.embeddings("array")[-1]
    table = bacpipe.search(query, loader=loader, k=3)
    clips = save_clips(table, tmp_path / "audio", tmp_path / "clips")
    assert ("channel" in table) == (channel == "each") and len(clips) == 3
    results = ModelResults(loader)
    heard = table.get("channel", pd.Series([2] * 3)).tolist()
    assert 2 in heard
    for path, start, side in zip(clips, table["start"], heard, strict=True):
        expected = sides[side - 1][round(start * 8000) :][:8000]
        np.testing.assert_allclose(sf.read(path)[0], expected, atol=1e-4)
        row = next(
            i for i in range(len(results))
            if results.start[i] == start and results.channel_of(i) in (None, side)
        )  # fmt: skip
        clip = read_clip(results, *results.window(row), channel=results.channel_of(row))
        np.testing.assert_allclose(clip.samples, expected, atol=1e-4)


def test_sites_are_told_apart_by_their_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    composed, apart = "for\u00eat", "fore\u0302t"  # as macOS writes it
    for seed, site in enumerate(("1_2", "12", "012", apart)):
        write_recording(tmp_path / "field" / site / "a.wav", 2.0, seed=seed)
    loader = bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, audio_dir=tmp_path / "field", device="cpu",
        main_results_dir=tmp_path / "results",
    )  # fmt: skip
    for site in ("1_2", "12", "012"):
        assert set(
            bacpipe.search(("12/a.wav", 0), loader=loader, where={"site": site})["site"]
        ) == {site}
    for sites, expected in (
        ((1, 12), {"12", "012"}),
        (12, {"12", "012"}),
        (["12", "012"], {"12", "012"}),
    ):
        found = bacpipe.search(("12/a.wav", 0), loader=loader, where={"site": sites})
        assert set(found["site"]) == expected
    near = bacpipe.search((f"{composed}/a.wav", 0), loader=loader, where={"site": composed})
    assert set(near["site"]) == {apart}
    assert not len(bacpipe.search(("12/a.wav", 0), loader=loader, where={"site": "122"}))
    assert "there is no site '122' with results here; did you mean '12'?" in caplog.text
    caplog.clear()
    both = {"recording": "12/a.wav", "site": "012"}  # both are there, but not together
    assert not len(bacpipe.search(("12/a.wav", 0), loader=loader, where=both))
    assert "there is no" not in caplog.text


def test_clips_of_long_names_in_any_script(tmp_path: Path) -> None:
    name = "/".join(["\u0436" * 60] * 3) + "/a.wav"
    write_recording(tmp_path / "field" / name, 2.0)
    loader = bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, audio_dir=tmp_path / "field", device="cpu",
        main_results_dir=tmp_path / "results",
    )  # fmt: skip
    found = bacpipe.search((name, 0), loader=loader)
    assert len(save_clips(found, tmp_path / "field", tmp_path / "clips")) == len(found) > 0


def test_models_of_the_command_are_not_thrown_away(loader: bacpipe.Loader) -> None:
    assert main(["search", "clip.wav", f"audio_dir={loader.audio_dir}", "models=tiny"]) == 2


def test_the_command_says_that_no_window_fits(
    loader: bacpipe.Loader, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = bacpipe.search((FIRST, 0), loader=loader, where={"site": "nowhere"})
    assert not len(empty)
    monkeypatch.setattr(sys.modules["bacpipe.search.find"], "search", lambda *_, **__: empty)
    words = ["search", "clip.wav", f"audio_dir={loader.audio_dir}"]
    capsys.readouterr()
    assert main([*words, "where={site: nowhere}"]) == 1
    said = capsys.readouterr().out
    assert said == f"No window fits these conditions: {quoted('where={site: nowhere}')}\n"
    assert main(words) == 1
    assert capsys.readouterr().out == "No window was found.\n"
    assert main([*words, "where='{site: a'"]) == 2
    assert "where='{site: a' is not understood" in capsys.readouterr().err.replace('"', "'")
