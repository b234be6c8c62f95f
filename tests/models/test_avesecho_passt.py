"""Class names of avesecho_passt: from the authors' list, or plainly numbered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bacpipe.errors import CheckpointError
from bacpipe.models.loading import load_model
from tests.models import parity


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("avesecho")
    parity.write_checkpoint("avesecho_passt", base)
    return base


@pytest.fixture
def labels(base: Path) -> Iterator[Path]:
    path = base / "avesecho_passt" / "list_AvesEcho.csv"
    yield path
    path.unlink(missing_ok=True)


def classes(base: Path) -> list[str]:
    return list(load_model("avesecho_passt", device="cpu", model_base_path=base).classes)


def test_without_the_list_classes_are_numbered(base: Path) -> None:
    names = classes(base)
    assert len(names) == 585
    assert (names[0], names[-1]) == ("class_000", "class_584")


def test_common_names_come_from_the_list_beside_the_checkpoint(base: Path, labels: Path) -> None:
    rows = ["Gypaetus barbatus,BeardedVulture", "Anas bahamensis,White-cheekedPintail"]
    rows += [f"Genus species{i},Bird number {i}" for i in range(2, 585)]
    labels.write_text("\n".join(rows) + "\n", encoding="utf-8")
    model = load_model("avesecho_passt", device="cpu", model_base_path=base)
    assert list(model.scientific_names[:2]) == ["Gypaetus barbatus", "Anas bahamensis"]
    names = model.classes
    assert names[:3] == ["Bearded Vulture", "White-cheeked Pintail", "Bird number 2"]
    assert len(names) == 585


def test_a_list_of_another_length_is_refused(base: Path, labels: Path) -> None:
    labels.write_text("Gypaetus barbatus,BeardedVulture\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"list_AvesEcho\.csv: holds 1 class names"):
        classes(base)
