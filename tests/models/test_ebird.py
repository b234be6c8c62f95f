from __future__ import annotations

from pathlib import Path

import pytest

from bacpipe.errors import CheckpointError
from bacpipe.models.weights.class_names import common_names


def test_codes_stay_without_a_taxonomy(tmp_path: Path) -> None:
    assert common_names(["eurrob1", "nocode"], [tmp_path]) == ("eurrob1", "nocode")


@pytest.mark.parametrize("columns", ["SPECIES_CODE,PRIMARY_COM_NAME", "SPECIES_CODE,COMMON_NAME"])
def test_known_codes_become_names_and_others_stay(tmp_path: Path, columns: str) -> None:
    (tmp_path / "eBird_Taxonomy_v2025.csv").write_text(
        f"TAXON_ORDER,{columns}\n1,eurrob1,European Robin\n", encoding="utf-8-sig"
    )
    elsewhere = tmp_path / "model"
    elsewhere.mkdir()
    names = common_names(["eurrob1", "nocode"], [elsewhere, tmp_path])
    assert names == ("European Robin", "nocode")


def test_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ebird_taxonomy.csv").write_text("code,name\na,b\n")
    with pytest.raises(CheckpointError, match=r"ebird_taxonomy\.csv.*SPECIES_CODE"):
        common_names(["a"], [tmp_path])
