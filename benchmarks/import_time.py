"""``import bacpipe`` against ``import numpy, yaml``, in fresh processes, in turns.

python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    statements = (
        "pass",
        "import numpy, yaml",
        "import bacpipe",
        "import bacpipe; bacpipe.settings",
    )
    rounds = [[seconds(statement) for statement in statements] for _ in range(15)]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    for statement, median in zip(statements, medians, strict=True):
        print(f"{1000 * (median - medians[0]):6.0f} ms  {statement}")
    ratio = (medians[2] - medians[0]) / (medians[1] - medians[0])
    print(f"import bacpipe / import numpy, yaml: {ratio:.2f}")


if __name__ == "__main__":
    main()
