"""Peak memory and time of preparing a corpus once and four times as large: memory must not follow the corpus.

    python scripts/benchmarks/prepare_memory.py --file reviews.csv.xz --text_column sen --tokenizer vocab.txt

The larger corpus is the same file named by four links. Memory is the sum over the process and its children, sampled ten
times a second; pages that processes share count in each, so it is an upper bound.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from electra_accel.cli import argument_parser, exit_with_one_line


def measure(arguments: list[str]) -> tuple[float, float]:
    """Peak resident memory in MB and wall time in seconds of prepare_data.py."""
    script = Path(__file__).resolve().parents[1] / "prepare_data.py"
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.DEVNULL)
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        resident = 0
        try:
            for member in [root, *root.children(recursive=True)]:
                resident += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended between the two calls
        peak = max(peak, resident)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"prepare_data.py failed with exit code {process.returncode}")
    return peak / 1e6, time.monotonic() - begin


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    for copies in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            links = [Path(folder) / f"{number}{''.join(asked.file.suffixes)}" for number in range(copies)]
            for link in links:
                os.symlink(asked.file.resolve(), link)
            options = ["--text_column", asked.text_column, "--tokenizer", asked.tokenizer]
            options += ["--processes", str(asked.processes), "--out", f"{folder}/out"]
            peak, seconds = measure(["--train_files", *map(str, links), *options])
            print(f"{copies} x {asked.file.name}: peak {peak:,.0f} MB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    exit_with_one_line(main)
