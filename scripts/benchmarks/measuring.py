"""What the benchmarks share: the ceiling, the machine in words, a section of a page, and an end that leaves nothing behind."""

import datetime
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from electra_accel.errors import UserError, writing
from electra_accel.runs.environment import commit

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}


def in_words(precision: str) -> str:
    return precision.replace("no", "fp32")


def seconds_of(work: Callable[[], object], device: str, times: int) -> list[float]:
    """Of each of so many calls; the device has finished at the end of each."""
    found = []
    for _ in range(times):
        _wait_for(device)
        began = time.perf_counter()
        work()
        _wait_for(device)
        found.append(time.perf_counter() - began)
    return found


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def product_ceiling(device: str, precision: str, times: int = 8) -> float:
    """FLOP/s of one large matrix product, the best of several."""
    n = 8192 if device == "cuda" else 1536
    a, b = (torch.ones(n, n, device=device, dtype=DTYPES[precision]) for _ in range(2))
    return 2 * n**3 / min(seconds_of(lambda: a @ b, device, times))


def copy_ceiling(device: str, times: int = 8) -> float:
    """Bytes read and written a second by copies of one large tensor, the best of several."""
    data = torch.empty(2**28 if device == "cuda" else 2**24, device=device)
    return 2 * data.nbytes / min(seconds_of(data.clone, device, times))


def machine(device: str) -> str:
    """What figures of speed depend on, with the date and the commit ("-dirty" where tracked files differ from it)."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        facts = Path("/proc/cpuinfo")
        lines = facts.read_text("utf-8", errors="replace").splitlines() if facts.exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        threads = torch.get_num_threads()
        name = f"{threads} thread{'s' * (threads > 1)} of {names[0] if names else 'a CPU'}"
    today = datetime.datetime.now(datetime.UTC)
    return f"{today:%Y-%m-%d}, commit {commit() or 'unknown'}, {name}, torch {torch.__version__}"


def parts_around(page: Path, section: str) -> tuple[str, str]:
    """What stands before and behind a section of a page.

    Raises:
        UserError: the page cannot be read, or has no lines that begin and end the section.
    """
    try:
        before, begin, rest = page.read_text("utf-8").partition(f"<!-- {section} -->\n")
    except OSError as error:
        raise UserError(f"--markdown {page}: {error.strerror}") from None
    _, end, after = rest.partition(f"<!-- /{section} -->")
    if not (begin and end):
        raise UserError(f"--markdown {page}: it has no lines <!-- {section} --> and <!-- /{section} -->; add them")
    return before + begin, end + after


def write_section(page: Path, section: str, lines: Sequence[str]) -> None:
    """Put ``lines`` in the place of what the section holds; errors as of :func:`parts_around`."""
    before, after = parts_around(page, section)
    with writing("--markdown", page):
        page.write_text("\n".join([before, *lines, "", after]), "utf-8")


def leave_on_sigterm() -> None:
    """As at a good end: children are ended, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
