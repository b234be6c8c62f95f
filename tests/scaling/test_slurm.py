"""Both ways of the guide on a real Slurm of one node, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "slurm.sh"
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "setpriv")


@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)) or os.geteuid() != 0,
    reason="needs Debian's slurm-wlm and munge, and root to start them",
)
@pytest.mark.timeout(1800)
def test_an_array_of_jobs_and_dask_give_the_results_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    if subprocess.run(["sinfo"], capture_output=True, timeout=60).returncode == 0:
        pytest.skip("a Slurm that is not ours runs here")
    # Ended by a signal that it hears, it ends the daemons that it has started.
    command = ["timeout", "1700", "bash", str(SCRIPT), str(tmp_path / "slurm")]
    environment = {**os.environ, "PYTHON": sys.executable}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    assert "all are done" in ended.stdout  # an array's job that did the last shard
    for way in ("results-array", "results-dask"):
        assert f"{way} differs from one process by" in ended.stdout
