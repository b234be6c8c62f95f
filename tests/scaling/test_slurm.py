"""Both ways of the guide on a real Slurm of one node, where it is installed and asked for."""

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
    "BACPIPE_TEST_SLURM" not in os.environ,
    reason="starts daemons, as root, and takes minutes: set BACPIPE_TEST_SLURM to run it",
)
@pytest.mark.timeout(3600)
def test_an_array_of_jobs_and_dask_give_the_results_of_one_process(tmp_path: Path) -> None:
    assert all(map(shutil.which, NEEDED)), "install Debian's slurm-wlm and munge"
    # Ended by a signal that it hears, it ends the daemons that it has started.
    command = ["timeout", "3500", "bash", str(SCRIPT), str(tmp_path / "slurm")]
    environment = {**os.environ, "PYTHON": sys.executable}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    for way in ("results-array", "results-dask"):  # which the script compares
        assert f"{way} differs from one process by" in ended.stdout
