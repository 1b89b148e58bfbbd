"""The views of an adaptation's story: in the terminal, on the page, in a model card, as W&B's summary, beside other runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from electra_accel.errors import UserError
from electra_accel.finetuning.results import difference_cells
from electra_accel.model.figures import FIGURES, shown
from electra_accel.paired import COVERS
from electra_accel.pretraining.cost import cost_text
from electra_accel.reports.adaptation import ENCODER, FRESH_GENERATOR, SCRATCH, Story, story_of_run
from electra_accel.reports.advice import RULES
from electra_accel.reports.judgements import SHORT, Judgement, best, figure_text
from electra_accel.reports.page import Table, capital, template
from electra_accel.reports.tasks import ENCODERS, sentence, task_changes

TEXTS = {"eval": "domain", "general": "general text"}
MOST_COLUMNS = 3  # runs; of more, each is a row
Sets = Mapping[str, Mapping[str, Any]]  # what a run knows of its held-out sets, see ``adaptation.held_out_sets``
INTERVAL = (
    "± is a 95% interval. It takes tokens as independent and does not cover other seeds. It treats before and after as judged "
    "on different samples, though they share one, which makes it too wide, never too narrow."
)


def verdict(story: Story) -> str:
    """In one sentence whether the networks read the domain's text better; never whether tasks gain (``tasks.sentence``)."""
    if story.later:
        return f"no better: none of {story.later:,} later evaluations is better than step {story.before_step:,}, which this is"
    if not story.compares:
        return f"judged at step {story.before_step:,} only: there is nothing to compare"
    change = story.domain[story.primary]
    where = "on the domain's text" if story.given else "on held-out text than untrained"
    if story.start == ENCODER:
        where = "on held-out text than with an untrained LM head"
    found = {
        "better": f"better {where}",
        "worse": f"worse {where}",
        "no better": f"no better {where}, as far as the held-out text can tell",
        None: "whether it is better cannot be told without standard errors",
    }[change.verdict]
    return f"{found}: {change.name} {change}"


def spent(story: Story) -> str:
    """Tokens and time of the run and of its generator's warm start, as far as they were recorded."""
    more = f", and {cost_text(story.warm_start)} in the generator's warm start" if story.warm_start else ""
    return cost_text(story.cost) + more


def card(folder: Path, step: int, name: str, exported: Path, finetuned: Path | None = None) -> str:
    """The part of a model card with the figures of a run; "" where it has judged nothing.

    Args:
        folder: of the run; ``step``: of the weights; ``name``: of the network; ``exported``: a folder with it.
        finetuned: folder of ``scripts/finetune.py`` with figures of these weights; None: none.

    Raises:
        UserError: ``finetuned`` is of other weights, or there is no story that its figures could belong to.
    """
    told = story_of_run(folder, step)
    if finetuned and (told is None or told.start == FRESH_GENERATOR):
        raise UserError(f"--tasks: {folder} has no story of an adaptation yet to which figures of tasks could belong")
    if told is None:
        return ""
    of_tasks = task_changes(folder, finetuned, exported) if finetuned and name in ENCODERS else ()
    return markdown(replace(told, tasks=of_tasks))


def lines(story: Story) -> list[str]:
    """For the terminal: what was spent, figures before and after, the verdict, advice."""
    told = [f"advice: {advice}" for advice in story.advice.values()]
    if not story.compares:
        return [verdict(story), *told]
    rows = [f"trained on {spent(story)}"]
    for prefix in story.sets:
        title = "held-out text" if prefix == "eval" else "general text"
        cells = [[f"{title}, fixed corruption", "before", "after", "change", ""]]
        cells += [[*row, f"{better} is better"] for text, *row, better in _rows(story) if text == TEXTS[prefix]]
        rows += [f"  {name:<33} {b:>9}   {a:>9}   {change:>17}   {end}".rstrip() for name, b, a, change, end in cells]
    if story.chance is not None:
        auc = "" if story.one_network else "; an AUC of 0.5 is chance"
        rows.append(f"  always guessing the most frequent token has generator accuracy {story.chance:.4f}{auc}")
    if story.domain[story.primary].error:
        rows.append(
            "  ± is a 95% interval; the true one is narrower, since before and after were judged on the same text"
        )
    rows.append(f"  {verdict(story)}")
    return rows + told


def markdown(story: Story) -> str:
    """For a model card: the verdict and a table; of one evaluation only, its figures."""
    columns, rows = ["held-out text", "figure", f"step {story.before_step:,}"], _rows(story)
    if story.compares:
        columns += [f"step {story.after_step:,}", "change"]
    else:
        rows = [[*row[:3], row[-1]] for row in rows]
    found = [_sentence(story), Table([*columns, "better"], rows).markdown()]
    found.append("Always on the same corruption of the same text." + (f" {INTERVAL}" if story.compares else ""))
    if story.tasks:
        start = "the network that it started from" if story.start != SCRATCH else "the same network untrained"
        found += [_task_table(story).markdown(), f"Each fine-tuned; before is {start}. {COVERS}"]
    return "\n\n".join(found)


def _rows(story: Story) -> list[list[str]]:
    """Held-out text, figure, before, after, change, and which way is better, of the figures that there are."""
    return [
        [TEXTS[prefix], each.name, figure_text(each.before), figure_text(each.after), each.difference_text, each.better]
        for prefix, changes in story.sets.items()
        for each in changes.values()
        if each.after is not None
    ]


def _task_table(story: Story) -> Table:
    rows = []
    for each in story.tasks:
        change, interval, _ = difference_cells(each.difference)
        change += f" ({interval})" if interval != "–" else ""
        figures, seeds = (figure_text(each.before), figure_text(each.after)), (each.difference or {"seeds": 0})["seeds"]
        rows.append([each.task, f"{each.metric}, {each.split}", *figures, change, str(seeds), each.verdict])
    return Table(["task", "figure", "before", "after", "change (95% interval)", "seeds", "verdict"], rows)


def summary_values(story: Story | None) -> dict[str, float]:
    """For W&B: ``story/<domain|general>/<figure>_<before|after|change|change_se>``, cost, the verdict (1 better, 0 no better,
    -1 worse) and ``story/advice/<rule>`` (1 where it was given). None where nothing was judged: no values."""
    if story is None:
        return {}
    values = {"story/steps": story.cost.steps, "story/exported_step": story.after_step}
    for prefix, changes in story.sets.items():
        for key, change in changes.items():
            name = f"story/{'domain' if prefix == 'eval' else prefix}/{key}"
            values |= {f"{name}_before": change.before, f"{name}_after": change.after}
            values |= {f"{name}_change": change.difference, f"{name}_change_se": change.error}
    for prefix, cost in (("", story.cost), ("warm_start_", story.warm_start)):
        if cost:
            values |= {f"story/{prefix}{name}": getattr(cost, name) for name in ("tokens", "hours", "device_hours")}
    values["story/verdict"] = {"better": 1, "no better": 0, "worse": -1}.get(story.domain[story.primary].verdict)
    values |= {f"story/advice/{rule}": int(rule in story.advice) for rule in RULES}
    return {name: value for name, value in values.items() if value is not None}


def section(story: Story | None, records: Sequence[dict], sets: Mapping[str, Mapping]) -> Markup:
    """For the page: the verdict, advice, and each held-out set's figures with the best of each; see ``adaptation.tell``."""
    if story is None:
        return template("report.html").not_judged()
    advice = {rule: said for rule, said in story.advice.items() if rule != "collapse"}  # at the top of the page
    found = [(prefix, _figures(story, prefix, records), sets.get(prefix, {})) for prefix in story.sets]
    return template("report.html").story(_sentence(story), advice, found, story.one_network, INTERVAL)


def side_by_side(stories: Sequence[Story], sets: Sequence[Sets]) -> Table:
    """A column for each run; with more than ``MOST_COLUMNS`` runs a row for each run, with fewer figures."""
    a_row_each, several = len(stories) > MOST_COLUMNS, len(stories) > 1
    rows = [
        ["started from", *(told.start for told in stories)],
        ["spent", *map(spent, stories)],
        ["judged at step", *(f"{told.before_step:,} and {told.after_step:,}" for told in stories)],
    ]
    for prefix, text in TEXTS.items():
        for figure in shown("story"):
            found = [told.sets.get(prefix, {}).get(figure.key) for told in stories]
            cells = [None if each is None or each.after is None else str(each) for each in found]
            if any(cells) and (figure.key in SHORT or not a_row_each):
                rows.append([f"{text}: {figure.full_name} ({figure.better} is better)", *cells])
        if several and any(known.get(prefix) for known in sets):
            first, *others = (_judgement(told, prefix, known) for told, known in zip(stories, sets, strict=True))
            rows.append([f"{text}: compares with the first run", None, *(comparable(each, first) for each in others)])
    for task in dict.fromkeys(each.task for told in stories for each in told.tasks):
        cells = [next((str(each) for each in told.tasks if each.task == task), None) for told in stories]
        rows.append([f"task {task}", *cells])
    if several:
        rows.append(["on the domain's text", *(told.domain[told.primary].verdict for told in stories)])
    columns = ["", *(told.name for told in stories)]
    if not a_row_each:
        return Table(columns, rows)
    (_, *names), *each = zip(columns, *rows, strict=True)
    return Table(["run", *names], each)


def comparable(judged: Judgement, first: Judgement) -> str:
    """Whether one run's figures may be compared with the first run's, and why not."""
    generator, discriminator = (judged.why_not(first, network) for network in ("generator", "discriminator"))
    if generator:
        return f"no: {generator}"
    return f"the generator's figures only: {discriminator}" if discriminator else "yes"


def _judgement(told: Story, prefix: str, sets: Sets) -> Judgement:
    after = {key: change.after for key, change in told.sets.get(prefix, {}).items() if change.after is not None}
    return Judgement(told.after_step, after, sets.get(prefix, {}))


def _sentence(story: Story) -> str:
    more = " Fine-tune it to see whether tasks gain." if story.after_step > story.before_step else ""
    if story.tasks:
        more = f" {capital(sentence(story.tasks))}."
    return f"{capital(verdict(story))}.{more}"


def _figures(story: Story, prefix: str, records: Sequence[dict]) -> Table:
    """The figures before and after with their intervals, and where each was best."""
    changes = story.sets[prefix]
    several = sum(f"{prefix}/generator_loss" in record for record in records) > 1
    judged = {key: change for key, change in changes.items() if change.before is not None or change.after is not None}
    rows = []
    for key, change in (judged or changes).items():
        row = [change.name, figure_text(change.before, change.before_error)]
        if several:
            at_best = best(records, FIGURES[key], prefix) or {}
            row += [figure_text(change.after, change.after_error), change.difference_text]
            row += [figure_text(at_best.get(f"{prefix}/{key}")), at_best.get("step")]
        rows.append([*row, change.better])
    columns = ["held-out figure", f"step {story.before_step:,}"]
    if several:
        columns += [f"step {story.after_step:,}", "change", "best", "at step"]
    return Table([*columns, "better"], rows)
