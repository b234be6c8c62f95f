from __future__ import annotations

from pathlib import Path

import pytest

import bacpipe


def test_the_zoo_prints_as_a_table(
    tmp_path: Path, restored_settings: None, capsys: pytest.CaptureFixture
) -> None:
    bacpipe.settings.model_base_path = tmp_path
    (tmp_path / "mix2").mkdir()
    (tmp_path / "mix2" / "mix2.pth").write_bytes(bytes(3_000_000))
    print(bacpipe.models)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(bacpipe.supported_models) <= set(rows)
    assert "3 MB" in rows["mix2"]
    assert "not here" in rows["beats"]
    assert rows["birdnet"].split()[1:5] == ["48000", "3", "1024", "6522"]
    assert "tensorflow" in rows["vggish"]
