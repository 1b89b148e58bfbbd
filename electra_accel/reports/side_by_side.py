"""Stories of several runs beside each other, and which of their figures may be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from electra_accel.model.figures import shown
from electra_accel.reports import story
from electra_accel.reports.adaptation import Story
from electra_accel.reports.judgements import Change, Judgement
from electra_accel.reports.tables import Table

MOST_COLUMNS = 3  # runs; of more, each is a row
SHORT = ("generator_loss", "auc")  # of a row: what the verdict and the rules look at
Sets = Mapping[str, Mapping[str, Any]]  # what a run knows of its held-out sets, see ``adaptation.held_out_sets``


def side_by_side(stories: Sequence[Story], sets: Sequence[Sets]) -> Table:
    """A column for each run; with more than ``MOST_COLUMNS`` runs a row for each run, with fewer figures.

    Args:
        sets: of each run.
    """
    a_row_each = len(stories) > MOST_COLUMNS
    rows = [
        ["started from", *(told.start for told in stories)],
        ["spent", *map(story.spent, stories)],
        ["judged at step", *(f"{told.before_step:,} and {told.after_step:,}" for told in stories)],
    ]
    for prefix, text in story.TEXTS.items():
        for figure in shown("story"):
            cells = [_cell(told.sets.get(prefix, {}).get(figure.key)) for told in stories]
            if any(cells) and (figure.key in SHORT or not a_row_each):
                rows.append([f"{text}: {figure.full_name} ({figure.better} is better)", *cells])
        if len(stories) > 1 and any(known.get(prefix) for known in sets):
            first, *others = (_judgement(told, prefix, known) for told, known in zip(stories, sets, strict=True))
            rows.append([f"{text}: compares with the first run", None, *(comparable(each, first) for each in others)])
    for task in dict.fromkeys(each.task for told in stories for each in told.tasks):
        cells = [next((str(each) for each in told.tasks if each.task == task), None) for told in stories]
        rows.append([f"task {task}", *cells])
    if len(stories) > 1:
        rows.append(["on the domain's text", *(told.domain[told.primary].verdict for told in stories)])
    columns = ["", *(told.name for told in stories)]
    if a_row_each:
        table = list(zip(columns, *rows, strict=True))
        return Table(["run", *table[0][1:]], [list(row) for row in table[1:]])
    return Table(columns, rows)


def comparable(judged: Judgement, first: Judgement) -> str:
    """Whether one run's figures may be compared with the first run's, in the words of ``Judgement.why_not``."""
    generator, discriminator = (judged.why_not(first, network) for network in ("generator", "discriminator"))
    if generator:
        return f"no: {generator}"
    return f"the generator's figures only: {discriminator}" if discriminator else "yes"


def _judgement(told: Story, prefix: str, sets: Sets) -> Judgement:
    after = {key: change.after for key, change in told.sets.get(prefix, {}).items() if change.after is not None}
    return Judgement(told.after_step, after, sets.get(prefix, {}))


def _cell(change: Change | None) -> str | None:
    if change is None or change.after is None:
        return None
    before = "–" if change.before is None else f"{change.before:.4f}"
    return f"{before} -> {change.after:.4f} ({story.difference(change)})"
