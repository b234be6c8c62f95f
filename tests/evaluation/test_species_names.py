"""Which class an annotated name means: never guessed, always explained."""

from __future__ import annotations

import pytest

import bacpipe
from bacpipe.evaluation.species_names import known_species, match_names, plain

CLASSES = ["Grey Heron", "Eurasian Wren", "Wren", "wren", "Passer montanus", "eurbla", "Noise"]
SCIENTIFIC = [
    "Ardea cinerea",
    "Troglodytes troglodytes",
    "Sp. one",
    "Sp. two",
    "Passer montanus",
    "Turdus merula",
    "",
]
SPECIES = [
    ("eurtre1", "Eurasian Tree Sparrow", "Passer montanus"),
    ("grhe", "Gray Heron", "Ardea cinerea"),
    ("sparrow", "Sparrow", "Passer montanus"),
    ("sparrow", "Sparrow", "Ardea cinerea"),
]


@pytest.mark.parametrize(
    ("annotation", "expected", "how"),
    [
        ("Grey Heron", "Grey Heron", "identical"),
        ("wren", "wren", "identical"),
        ("gray heron", "Grey Heron", "spelling"),
        ("GREY-HERON", "Grey Heron", "spelling"),
        ("Eurasian_Wren ", "Eurasian Wren", "spelling"),
        ("troglodytes troglodytes", "Eurasian Wren", "scientific name"),
        ("Turdus merula", "eurbla", "scientific name"),
        ("Eurasian Tree-Sparrow", "Passer montanus", "synonym"),
        ("eurtre1", "Passer montanus", "synonym"),
        ("WREN", None, "ambiguous"),
        ("sparrow", None, "ambiguous"),
        ("Unicorn", None, "missing"),
        ("?", None, "missing"),
    ],
)
def test_names_are_matched_step_by_step(annotation, expected, how):
    (match,) = match_names([annotation], CLASSES, SCIENTIFIC, SPECIES)
    assert (match.how, match.column) == (how, None if expected is None else CLASSES.index(expected))
    if how == "ambiguous":
        assert len(match.candidates) == 2


def test_class_names_made_of_two_names_match_either():
    classes = ["Turdus merula_Eurasian Blackbird", "Ardea cinerea (Grey Heron)"]
    matches = match_names(["Eurasian blackbird", "turdus merula", "Gray heron"], classes)
    assert [match.column for match in matches] == [0, 0, 1]


def test_the_same_class_name_twice_is_ambiguous():
    (match,) = match_names(["Robin"], ["Robin", "Robin"])
    assert match.column is None and match.how == "ambiguous"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Abbott's Babbler", "abbotts babbler"),
        ("Rüppell’s  Warbler", "ruppells warbler"),
        ("Greylag_Goose", "graylag goose"),
        ("  ", ""),
    ],
)
def test_plain_names(name, expected):
    assert plain(name) == expected


def test_species_lists_on_this_machine_are_used(tmp_path):
    (tmp_path / "eBird_Taxonomy_v2024.csv").write_text(
        "SPECIES_CODE,PRIMARY_COM_NAME,SCI_NAME\nmade1,Made-up Bird,Avis ficta\n"
    )
    species = known_species(tmp_path)
    assert ("made1", "Made-up Bird", "Avis ficta") in species
    assert ("Turdus merula", "Eurasian Blackbird") in species
    (match,) = match_names(["made1"], ["Avis ficta"], (), species)
    assert match.column == 0
    assert bacpipe.settings.model_base_path  # the default folder is read the same way


def test_both_names_at_once_as_birdnet_writes_them():
    classes, scientific = ["Eurasian Blackbird", "European Robin"], ["Turdus merula", "E. rubecula"]
    names = [
        "Turdus merula_Eurasian Blackbird",
        "Turdus merula_Amsel",
        "Sturnus_European Robin",
        "Turdus merula_European Robin",
        "Sturnus vulgaris_Star",
    ]
    found = match_names(names, classes, scientific)
    assert [(m.column, m.how) for m in found] == [
        (0, "scientific name"),
        (0, "scientific name"),
        (1, "identical"),
        (None, "ambiguous"),
        (None, "missing"),
    ]


def test_what_the_user_says_comes_first():
    (found,) = match_names(["robin"], ["robin", "wren"], label_map={"robin": "wren"})
    assert (found.column, found.how) == (1, "label_map")
    (missing,) = match_names(["robin"], ["robin", "wren"], label_map={"robin": "owl"})
    assert (missing.column, missing.how) == (None, "missing")
