"""The kinds of tasks by name. A new one stands in its own file, and in the list here."""

from collections.abc import Callable

from electra_accel.finetuning.kinds.classification import Classification
from electra_accel.finetuning.kinds.kind import Kind
from electra_accel.finetuning.kinds.pair import Pair
from electra_accel.finetuning.kinds.regression import Regression
from electra_accel.finetuning.kinds.tagging import Tagging

KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Classification, Pair, Regression, Tagging)}
METRIC_NAMES = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.metrics))


def by_kind(default: Callable[[type[Kind]], str]) -> str:
    """A default for ``--help``: that of the first kind, then of those that have another: "label, tagging tags"."""
    first, *others = ((kind.name, default(kind)) for kind in KINDS.values())
    return ", ".join([first[1], *(f"{name} {value}" for name, value in others if value != first[1])])
