"""Workers on shards that are killed: a handful here, many with ``tests/faults/kill_shards.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_shards.py")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
def test_killed_workers_leave_the_tree_of_one_undisturbed_run(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    command = [
        sys.executable, str(SCRIPT), "--recordings", "60", "--shard", "8", "--kills", "6",
        "--seed", "1", "--report", str(path),
    ]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert path.is_file(), process.stderr
    report = json.loads(path.read_text())
    assert report["faults"] == []
    assert report["kills"] >= 4
    assert report["files_compared"] > 120
