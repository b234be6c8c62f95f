"""Names of classes: by codes, by scientific names, from tables of their own, checked."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from bacpipe.errors import CheckpointError
from bacpipe.models.card import LabelFile, Url
from bacpipe.models.weights import checkpoints
from bacpipe.models.weights.class_names import (
    ClassNames,
    Species,
    Taxonomy,
    fitting_codes,
    names_of_codes,
    names_of_species,
    numbered_classes,
    read_list,
    read_species,
    read_taxonomy,
)
from bacpipe.models.weights.label_files import read_names
from bacpipe.models.zoo import CARDS, EBIRD
from tests.models.hub_server import Hub
from tests.models.test_checkpoints import hub, impatient

__all__ = ["hub", "impatient"]  # fixtures

ROBIN = Species("eurrob1", "European Robin", "Erithacus rubecula")
EDITION = {"eurrob1": {"sci_name": "Erithacus rubecula", "common_name": "European Robin"}}


def test_numbered_classes_have_one_width() -> None:
    assert numbered_classes(2) == ("class_000", "class_001")
    assert numbered_classes(9736)[-1] == "class_9735"


def names_of(model: str, path: Path, n_classes: int) -> ClassNames | None:
    return read_names(CARDS[model], path.parent, n_classes=n_classes, path=path)


def test_codes_stay_without_a_taxonomy(tmp_path: Path) -> None:
    names = names_of_codes(["eurrob1", "nocode"], read_taxonomy(EBIRD, tmp_path))
    assert names == (["eurrob1", "nocode"], ["", ""], ["eurrob1", "nocode"])


@pytest.mark.parametrize("common", ["PRIMARY_COM_NAME", "COMMON_NAME"])
@pytest.mark.parametrize("folder", ["", "model", "model/assets"])
def test_a_table_that_people_put_there(tmp_path: Path, common: str, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "eBird_Taxonomy_v2025.csv").write_text(
        f"TAXON_ORDER,SPECIES_CODE,{common},SCI_NAME\n"
        "1,eurrob1,European Robin,Erithacus rubecula\n",
        encoding="utf-8-sig",
    )
    names = names_of_codes(["eurrob1", "nocode"], read_taxonomy(EBIRD, tmp_path))
    assert names.classes == ["European Robin", "nocode"]
    assert names.scientific_names == ["Erithacus rubecula", ""]


def test_the_edition_of_the_checkpoints_counts_first(tmp_path: Path) -> None:
    (tmp_path / "ebird").mkdir()
    newer = {"eurrob1": {"sci_name": "Other name", "common_name": "Robin"}}
    newer["newbir1"] = {"sci_name": "Avis nova", "common_name": "New Bird"}
    for edition, content in zip(EBIRD, (EDITION, newer), strict=True):
        (tmp_path / edition.name).write_text(json.dumps(content))
    names = names_of_codes(["newbir1", "eurrob1"], read_taxonomy(EBIRD, tmp_path))
    assert names.classes == ["New Bird", "European Robin"]


@pytest.mark.parametrize("content", ["code,name\na,b\n", "", "[1]"])
def test_what_is_no_taxonomy_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "ebird_taxonomy.csv").write_text(content)
    with pytest.raises(CheckpointError, match=r"ebird_taxonomy\.csv.*SPECIES_CODE"):
        read_taxonomy(EBIRD, tmp_path)


def test_names_by_scientific_names() -> None:
    listed = ["Erithacus rubecula", "Hyla arborea", "Wind_chime", "Bark", "Human vocal"]
    names = names_of_species(listed, Taxonomy([ROBIN]))
    assert names.classes == ["European Robin", *listed[1:]]
    assert names.scientific_names == ["Erithacus rubecula", "Hyla arborea", "", "", ""]
    assert names.codes == ["eurrob1", "", "", "", ""]


def test_no_two_classes_have_one_name() -> None:
    twins = Taxonomy([Species("a1", "Bird", "Avis una"), Species("b1", "Bird", "Avis bina")])
    assert names_of_codes(["a1", "b1"], twins).classes == ["Bird (a1)", "Bird (b1)"]
    assert len(set(names_of_species(["Avis una", "Avis bina"], twins).classes)) == 2


def test_a_table_of_codes_of_other_species_is_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    species = [
        Species(f"bird{i}", f"Bird {i}", f"Avis {letter}") for i, letter in enumerate("abcd")
    ]
    names = [s.scientific_name for s in species]
    codes = [s.code for s in species]
    taxonomy = Taxonomy(species)
    one_renamed = ["Avis altera", *names[1:]]
    assert fitting_codes(codes, one_renamed, taxonomy, Path("codes.csv")) == codes
    shifted = [*codes[1:], codes[0]]
    assert fitting_codes(shifted, names, taxonomy, Path("codes.csv")) is None
    assert "codes.csv: not used, because 4 of its 4 codes" in caplog.text


def label_file(hub: Hub, sha256: str, name: str = "w.csv") -> LabelFile:
    source = Url("m", f"{hub.endpoint}/plain/{name}", filename="labels.csv", sha256=sha256)
    return LabelFile("m/labels.csv", (source,), patterns=("m/*names*.csv",))


class TestLabelFiles:
    def test_are_fetched_beside_weights_that_are_there(self, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m/weights.pth").write_bytes(b"w")
        hub.files["plain/w.csv"] = b"a"
        labels = label_file(hub, hashlib.sha256(b"a").hexdigest())
        assert checkpoints.fetch_labels([labels], tmp_path) == []
        assert (tmp_path / "m/labels.csv").read_bytes() == b"a"
        assert (tmp_path / "m/weights.pth").read_bytes() == b"w"

    def test_that_people_put_there_are_used(self, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m/my_names.csv").write_bytes(b"mine")
        checkpoints.fetch_labels([label_file(hub, "0" * 64)], tmp_path)
        assert hub.requests == []

    @pytest.mark.parametrize("content", [b"damaged", None])
    def test_failing_is_a_warning_that_says_where_it_is(
        self, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
    ) -> None:
        if content is not None:
            hub.files["plain/w.csv"] = content
        labels = label_file(hub, "0" * 64)
        (problem,) = checkpoints.fetch_labels([labels], tmp_path)
        assert f"download {hub.endpoint}/plain/w.csv as {tmp_path / 'm/labels.csv'}" in problem
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert not (tmp_path / "m/labels.csv").exists()
        asked = len(hub.requests)
        assert checkpoints.fetch_labels([labels], tmp_path) == []  # once in a process
        assert len(hub.requests) == asked


def test_every_classifier_knows_where_its_names_come_from() -> None:
    within = {  # in the checkpoint, in a package or in the code
        *("bat", "batdetect2_clip_avg", "batdetect2_dets_avg", "birdnet", "google_whale"),
        *("google_humpback", "surfperch", "yamnet"),
    }
    for card in CARDS.values():
        if card.is_classifier:
            assert card.labels or card.name in within, card.name
            # How many those of ESP-AVES2 are, only their weights say.
            assert card.n_classes or card.name.startswith("esp_aves2_"), card.name


@pytest.mark.parametrize(
    "content",
    ["Erithacus rubecula_Rotkehlchen\n".encode("utf-16"), "Strix_Käuzchen".encode("cp1252"), None],
)
@pytest.mark.parametrize(
    "read",
    [
        read_species,
        lambda path: read_list(path, 1),
        lambda path: read_taxonomy([LabelFile(path.name, sources=())], path.parent),
        lambda path: names_of("birdnet_v3", path, 1),
    ],
)
def test_label_files_that_are_no_text(
    tmp_path: Path, read: Callable[[Path], object], content: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (path := tmp_path / "labels.csv").write_bytes(content or b"a,b")
    if content is None:

        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CheckpointError, match=r"labels\.csv: this label file cannot be read"):
        read(path)


def test_rows_that_are_too_short_and_names_that_are_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("index;sci_name;com_name\n0;Strix aluco\n")
    with pytest.raises(CheckpointError, match=r"row '0, Strix aluco' lacks column 3"):
        names_of("birdnet_v3", path, 1)
    path.write_text("Strix aluco,Tawny Owl\nStrix aluco\n")
    with pytest.raises(CheckpointError, match="lacks column 2"):
        names_of("avesecho_passt", path, 2)
    for names in (["Strix aluco"] * 3, ["Strix aluco", "Wind", "Wind"]):
        classes = names_of_species(names, Taxonomy(), common=["Tawny Owl", "Wind", "Wind"]).classes
        assert len(set(classes)) == 3
