"""Random damage to all that a user gives: it is taken, or refused with one line that names it (make fuzz).

python -m tests.fuzz.drive                      # 10,000 inputs
python -m tests.fuzz.drive --examples 300 --only corpus task
"""

import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from tests.fuzz.targets import Target, judge, targets

LIMIT = 60_000  # milliseconds that an input may take


def fuzz(target: Target, examples: int, place: Path, number: int = 1) -> Counter[str]:
    """How often inputs were taken and refused. Raises what hypothesis found, with the smallest input that shows it, and
    AssertionError where an input without damage is refused.

    Args:
        number: seed; the same gives the same inputs.
    """
    found: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=LIMIT,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    @given(target.inputs)
    def once(value: object) -> None:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            found[judge(target, Path(folder), value)] += 1

    with tempfile.TemporaryDirectory(dir=place) as folder:
        if judge(target, Path(folder), target.good) != "taken":
            raise AssertionError("an input without damage was refused")
    once()
    return found


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="in all")
    parser.add_argument("--only", nargs="+", metavar="TARGET")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as base:
        place = Path(base)
        known = targets(place)
        if unknown := set(asked.only or ()) - known.keys():
            raise UserError(f"--only {unknown.pop()} is none of {', '.join(known)}")
        chosen = asked.only or list(known)
        for name in chosen:
            began = time.monotonic()
            try:
                found = fuzz(known[name], max(1, asked.examples // len(chosen)), place, asked.seed)
                told = f"{found['taken']:,} taken, {found['refused']:,} refused"
            except Exception as error:  # what the reader raised
                failed += 1
                told = f"FAULT\n{''.join(traceback.format_exception(error))}"
            print(f"{name}: {told}  ({time.monotonic() - began:.0f} s)", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    exit_with_one_line(main)
