"""Runs that are killed: a handful here, a hundred with ``tests/faults/kill_runs.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_runs.py")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and counts its threads")
@pytest.mark.parametrize("more", [[], ["--together"]], ids=["one model", "two models"])
def test_killed_runs_end_with_the_tree_of_an_uninterrupted_one(
    tmp_path: Path, more: list[str]
) -> None:
    path = tmp_path / "report.json"
    command = [sys.executable, str(SCRIPT), "--count", "4", "--seed", "3", "--report", str(path)]
    process = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert path.is_file(), process.stderr
    report = json.loads(path.read_text())
    assert report["faults"] == []
    assert process.returncode == 0
    assert report["kills"] == 4
    assert report["trees_equal"] == report["trees"]
    assert report["files_compared"] > 50
