"""The views of an adaptation's story: in the terminal, on the page, in a model card, as W&B's summary, and of several runs."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from electra_accel.tracking.adaptation import FIGURES, SETS, Change, Story, figures_of
from electra_accel.tracking.intervals import Z95
from electra_accel.tracking.page import cell_text, table
from electra_accel.tracking.terminal import duration

TEXTS = {"eval": "domain", "general": "general text"}


def verdict(story: Story) -> str:
    """In one sentence whether the networks read the domain's text better; never whether tasks gain."""
    if story.after_step == story.before_step:
        return f"judged at step {story.before_step:,} only: there is nothing to compare"
    change = story.domain[story.primary]
    where = "on the domain's text" if story.given else "on held-out text than untrained"
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
    """Tokens and time, as far as they were recorded."""
    text = f"{story.steps:,} steps" if story.tokens is None else f"{story.tokens:,} tokens"
    if story.hours is not None:
        text += f" in {duration(story.hours * 3600)}"
        if story.device_hours and story.device_hours > 1.01 * story.hours:
            text += f" ({story.device_hours:.2f} hours of all processes)"
    return text


def lines(story: Story) -> list[str]:
    """For the terminal: what was spent, figures before and after, the verdict, advice."""
    rows = [f"trained on {spent(story)}"]
    for prefix, changes in _sets(story):
        title = "held-out text" if prefix == "eval" else "general text"
        rows.append(f"  {title + ', fixed corruption':<32} {'before':>9}   {'after':>9}   {'change':>17}")
        rows += [
            f"  {change.name:<32} {_number(change.before):>9}   {_number(change.after):>9}   {difference(change):>17}   "
            f"{change.better} is better"
            for change in changes.values()
            if change.after is not None
        ]
    if story.chance is not None:
        rows.append(
            f"  always guessing the most frequent token has generator accuracy {story.chance:.4f}; an AUC of 0.5 is chance"
        )
    rows.append(f"  {verdict(story)}")
    return rows + [f"advice: {advice}" for advice in story.advice.values()]


def markdown(story: Story) -> str:
    """For a model card: the verdict and a table."""
    rows = [
        f"| {TEXTS[prefix]} | {change.name} | {_number(change.before)} | {_number(change.after)} | {difference(change)} "
        f"| {change.better} |"
        for prefix, changes in _sets(story)
        for change in changes.values()
        if change.after is not None
    ]
    head = f"| held-out text | figure | step {story.before_step:,} | step {story.after_step:,} | change | better |"
    return "\n".join(
        [
            _sentence(story),
            "",
            head,
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "Always on the same corruption of the same text. ± is a 95% interval that takes tokens as independent; it knows "
            "nothing of other seeds.",
        ]
    )


def summary_values(story: Story | None) -> dict[str, float]:
    """For W&B: ``story/<domain|general>/<figure>_<before|after|change|change_se>``, cost, the verdict (1 better, 0 no better,
    -1 worse) and ``story/advice/<rule>`` (1 where it was given). None where nothing was judged: no values."""
    if story is None:
        return {}
    values = {"story/steps": story.steps, "story/exported_step": story.after_step}
    for prefix, changes in _sets(story):
        for key, change in changes.items():
            name = f"story/{'domain' if prefix == 'eval' else prefix}/{key}"
            values |= {f"{name}_before": change.before, f"{name}_after": change.after}
            values |= {f"{name}_change": change.difference, f"{name}_change_se": change.error}
    values |= {"story/tokens": story.tokens, "story/hours": story.hours, "story/device_hours": story.device_hours}
    values["story/verdict"] = {"better": 1, "no better": 0, "worse": -1}.get(story.domain[story.primary].verdict)
    values |= {f"story/advice/{rule}": int(rule in story.advice) for rule in ("collapse", "forgetting", "rising")}
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
    for prefix, changes in _sets(story):
        evaluations = [record for record in records if f"{prefix}/generator_loss" in record]
        html += _figures(story, changes, prefix, evaluations, caption="General text" if prefix == "general" else "")
        html += _judged_on(sets.get(prefix, {}))
    return html


def side_by_side(stories: Sequence[Story]) -> tuple[list[str], list[list]]:
    """Columns and rows of a table of several runs: a column each."""
    rows = [
        ["started from", *("a given pair" if story.given else "scratch" for story in stories)],
        ["spent", *map(spent, stories)],
        ["judged at step", *(f"{story.before_step:,} and {story.after_step:,}" for story in stories)],
    ]
    for prefix, text in TEXTS.items():
        for key, name, better in FIGURES:
            cells = [_before_to_after(dict(_sets(story)).get(prefix, {}).get(key)) for story in stories]
            if any(cells):
                rows.append([f"{text}: {name} ({better} is better)", *cells])
    rows.append(["on the domain's text", *(story.domain[story.primary].verdict for story in stories)])
    return ["", *(story.name for story in stories)], rows


def _sentence(story: Story) -> str:
    said = verdict(story)
    more = " Whether tasks gain is for fine-tuning to show." if story.after_step > story.before_step else ""
    return f"{said[0].upper()}{said[1:]}.{more}"


def _sets(story: Story) -> list[tuple[str, dict[str, Change]]]:
    """The held-out sets that were judged, by prefix."""
    return [(prefix, changes) for prefix, changes in zip(SETS, (story.domain, story.general), strict=True) if changes]


def _before_to_after(change: Change | None) -> str | None:
    if change is None or change.after is None:
        return None
    return f"{_number(change.before)} -> {_number(change.after)} ({difference(change)})"


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


def _judged_on(held_out: Mapping) -> Markup:
    """What the figures were measured on, and what they would be by chance."""
    said = "Always on the same corruption of the same held-out text, so that the figures compare. A ROC-AUC of 0.5 is chance"
    if "chance" in held_out:
        said += f"; always guessing the most frequent token has generator accuracy {held_out['chance']:.4f}"
    said += "."
    if "judged" in held_out:
        said += (
            f" {held_out['examples']:,} examples, {held_out['judged']:,} tokens, {held_out['selected']:,} selected, "
            f"{held_out['replaced']:,} replaced (drawn by {held_out['replacements']}; corruption {held_out['corruption']}). "
            "± is a 95% interval that takes tokens as independent; it knows nothing of other seeds."
        )
    return Markup('<p class="quiet small">{}</p>').format(said)


def _with_interval(value: float | None, error: float | None) -> str:
    return _number(value) + (f" ± {Z95 * error:.4f}" if value is not None and error else "")


def _number(value: float | None) -> str:
    return cell_text(None) if value is None else f"{value:.4f}"
