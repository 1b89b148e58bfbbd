"""The views of an adaptation's story: in the terminal, on the page, in a model card, as W&B's summary."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from electra_accel.errors import UserError
from electra_accel.intervals import Z95
from electra_accel.paired import COVERS
from electra_accel.pretraining.cost import cost_text
from electra_accel.reports.adaptation import ENCODER, FRESH_GENERATOR, SCRATCH, SETS, Story, story_of_run
from electra_accel.reports.advice import RULES
from electra_accel.reports.changes import Change, figures_of
from electra_accel.reports.page import cell_text, table
from electra_accel.reports.tasks import ENCODERS, sentence, task_changes

TEXTS = {"eval": "domain", "general": "general text"}
INTERVAL = (
    "± is a 95% interval. It takes tokens as independent and knows nothing of other seeds. It treats before and after as "
    "judged on different samples, though they are one: for that reason it is too wide, never too narrow."
)


def verdict(story: Story) -> str:
    """In one sentence whether the networks read the domain's text better; never whether tasks gain (``tasks.sentence``)."""
    if story.later:
        return f"no better: none of {story.later:,} later evaluations is better than step {story.before_step:,}, which this is"
    if story.after_step == story.before_step:
        return f"judged at step {story.before_step:,} only: there is nothing to compare"
    change = story.domain[story.primary]
    where = "on the domain's text" if story.given else "on held-out text than untrained"
    if story.start == ENCODER:
        where = "on held-out text than with an untrained LM head"
    found = {
        "better": f"better {where}",
        "worse": f"worse {where}",
        "no better": f"no better {where}, as far as that can tell",
        None: "whether it is better cannot be told without standard errors",
    }[change.verdict]
    return f"{found}: {change.name} {_number(change.before)} -> {_number(change.after)} ({difference(change)})"


def difference(change: Change) -> str:
    """After minus before, with its 95% interval where that is known."""
    if change.difference is None:
        return "–"
    return f"{change.difference:+.4f}" + (f" ± {Z95 * change.error:.4f}" if change.error else "")


def spent(story: Story) -> str:
    """Tokens and time of the run and of its generator's warm start, as far as they were recorded."""
    more = f", and {cost_text(story.warm_start)} in the generator's warm start" if story.warm_start else ""
    return cost_text(story.cost) + more


def card(folder: Path, step: int, name: str, exported: Path, finetuned: Path | None = None) -> str:
    """The part of a model card with the figures of a run, "" where it has judged nothing.

    Args:
        folder: of the run; ``step``: of the weights; ``name``: of the network.
        exported: a folder with the network.
        finetuned: folder of ``scripts/finetune.py`` with figures of these weights; None: none.

    Raises:
        UserError: ``finetuned`` is of other weights, or there is no story that its figures could belong to.
    """
    told = story_of_run(folder, step)
    if finetuned and (told is None or told.start == FRESH_GENERATOR):
        raise UserError(f"--tasks: {folder} has no story of an adaptation yet that figures of tasks could belong to")
    if told is None:
        return ""
    of_tasks = task_changes(folder, finetuned, exported) if finetuned and name in ENCODERS else ()
    return markdown(replace(told, tasks=of_tasks))


def lines(story: Story) -> list[str]:
    """For the terminal: what was spent, figures before and after, the verdict, advice."""
    told = [f"advice: {advice}" for advice in story.advice.values()]
    if story.after_step == story.before_step:
        return [verdict(story), *told]
    rows = [f"trained on {spent(story)}"]
    for prefix, changes in sets_of(story):
        title = "held-out text" if prefix == "eval" else "general text"
        rows.append(f"  {title + ', fixed corruption':<32} {'before':>9}   {'after':>9}   {'change':>17}")
        rows += [
            f"  {change.name:<32} {_number(change.before):>9}   {_number(change.after):>9}   {difference(change):>17}   "
            f"{change.better} is better"
            for change in changes.values()
            if change.after is not None
        ]
    if story.chance is not None:
        auc = "" if story.one_network else "; an AUC of 0.5 is chance"
        rows.append(f"  always guessing the most frequent token has generator accuracy {story.chance:.4f}{auc}")
    if story.domain[story.primary].error:
        rows.append(
            "  ± is a 95% interval as if before and after were judged on different text: too wide rather than narrow"
        )
    rows.append(f"  {verdict(story)}")
    return rows + told


def markdown(story: Story) -> str:
    """For a model card: the verdict and a table; of one evaluation only, its figures."""
    compares = story.after_step != story.before_step
    columns = ["held-out text", "figure", f"step {story.before_step:,}"]
    columns += [f"step {story.after_step:,}", "change", "better"] if compares else ["better"]
    rows = []
    for prefix, changes in sets_of(story):
        for change in (change for change in changes.values() if change.after is not None):
            more = [_number(change.after), difference(change)] if compares else []
            rows.append([TEXTS[prefix], change.name, _number(change.before), *more, change.better])
    return "\n".join(
        [
            _sentence(story),
            "",
            *("| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows)),
            "",
            "Always on the same corruption of the same text." + (f" {INTERVAL}" if compares else ""),
            *(_task_table(story) if story.tasks else ()),
        ]
    )


def _task_table(story: Story) -> list[str]:
    rows = []
    for each in story.tasks:
        cells = [each.task, f"{each.metric}, {each.split}", _number(each.before), _number(each.after)]
        found = each.difference or {"mean": None, "low": None, "seeds": 0}
        change = "–" if found["mean"] is None else f"{found['mean']:+.4f}"
        if found["low"] is not None:
            change += f" ({found['low']:+.4f} to {found['high']:+.4f})"
        rows.append([*cells, change, str(found["seeds"]), each.verdict])
    start = "the network that it started from" if story.start != SCRATCH else "the same network untrained"
    return [
        "",
        "| task | figure | before | after | change (95% interval) | seeds | verdict |",
        "|---|---|---|---|---|---|---|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
        "",
        f"Each fine-tuned; before is {start}. {COVERS}",
    ]


def summary_values(story: Story | None) -> dict[str, float]:
    """For W&B: ``story/<domain|general>/<figure>_<before|after|change|change_se>``, cost, the verdict (1 better, 0 no better,
    -1 worse) and ``story/advice/<rule>`` (1 where it was given). None where nothing was judged: no values."""
    if story is None:
        return {}
    values = {"story/steps": story.cost.steps, "story/exported_step": story.after_step}
    for prefix, changes in sets_of(story):
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
    """For the page: the verdict, advice, and each held-out set's figures with the best of each.

    Args:
        records, sets: as for ``adaptation.tell``.
    """
    if story is None:
        return Markup("<p>{}</p>").format("The held-out text has not been judged yet.")
    html = Markup("<p>{}</p>").format(_sentence(story))
    for rule, advice in story.advice.items():
        if rule == "collapse":  # the page's first lines tell of it, with the steps
            continue
        html += Markup('<p class="warning"><strong>{}</strong>: {}.</p>').format(rule, advice)
    for prefix, changes in sets_of(story):
        evaluations = [record for record in records if f"{prefix}/generator_loss" in record]
        html += _figures(story, changes, prefix, evaluations, caption="General text" if prefix == "general" else "")
        html += _judged_on(sets.get(prefix, {}), story.one_network)
    return html


def _sentence(story: Story) -> str:
    said = verdict(story)
    more = " Whether tasks gain is for fine-tuning to show." if story.after_step > story.before_step else ""
    if story.tasks:
        more = f" {_capital(sentence(story.tasks))}."
    return f"{_capital(said)}.{more}"


def _capital(said: str) -> str:
    return f"{said[0].upper()}{said[1:]}"


def sets_of(story: Story) -> list[tuple[str, dict[str, Change]]]:
    """The held-out sets that were judged, by prefix."""
    return [(prefix, changes) for prefix, changes in zip(SETS, (story.domain, story.general), strict=True) if changes]


def _figures(
    story: Story, changes: Mapping[str, Change], prefix: str, evaluations: Sequence[dict], caption: str
) -> Markup:
    """The figures before and after with their intervals, and where each was best."""
    more = len(evaluations) > 1
    rows = []
    judged = {key: change for key, change in changes.items() if change.before is not None or change.after is not None}
    for key, change in (judged or changes).items():
        row = [change.name, _with_interval(change.before, change.before_error)]
        if more:
            known = [(figures_of(record, prefix), record["step"]) for record in evaluations]
            known = [(figures[key], step) for figures, step in known if key in figures]
            choose = max if change.better == "higher" else min
            best, at = choose(known, key=lambda entry: entry[0], default=(None, None))
            row += [_with_interval(change.after, change.after_error), difference(change), _number(best), at]
        rows.append([*row, change.better])
    columns = ["held-out figure", f"step {story.before_step:,}"]
    if more:
        columns += [f"step {story.after_step:,}", "change", "best", "at step"]
    return table([*columns, "better"], rows, caption)


def _judged_on(held_out: Mapping, one_network: bool) -> Markup:
    """What the figures were measured on, and what they would be by chance. One network alone reads no replaced tokens."""
    said = "Always on the same corruption of the same held-out text, so that the figures compare."
    if not one_network:
        said += " A ROC-AUC of 0.5 is chance."
    if "chance" in held_out:
        said += f" Always guessing the most frequent token has generator accuracy {held_out['chance']:.4f}."
    if "judged" in held_out:
        said += f" {held_out['examples']:,} examples, {held_out['judged']:,} tokens, {held_out['selected']:,} selected"
        if not one_network:
            drawn = f"drawn by {held_out['replacements']}; corruption {held_out['corruption']}"
            said += f", {held_out['replaced']:,} replaced ({drawn})"
        said += f". {INTERVAL}"
    return Markup('<p class="quiet small">{}</p>').format(said)


def _with_interval(value: float | None, error: float | None) -> str:
    return _number(value) + (f" ± {Z95 * error:.4f}" if value is not None and error else "")


def _number(value: float | None) -> str:
    return cell_text(None) if value is None else f"{value:.4f}"
