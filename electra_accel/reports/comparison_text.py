"""A comparison in words and tables: the notes that a reader must know, and the rows for page, markdown and csv."""

import csv
import io
import re
from collections import Counter

import numpy as np

from electra_accel.intervals import Z95
from electra_accel.reports.compare import (
    FIGURES,
    IN_WORDS,
    MOVED_BY_SHARE,
    UNKNOWN,
    Comparison,
    Figure,
    Group,
    differing,
    standard_errors,
    why_not,
)
from electra_accel.reports.experiments import Experiment, Judgement
from electra_accel.reports.page import cell_text

NOT_COMPARABLE = "not comparable"
COSTS = {  # record key -> heading
    "train/tokens": "tokens",
    "train/hours": "hours",
    "train/device_hours": "device hours",
    "train/flops": "FLOPs",
}


def flags(comparison: Comparison) -> list[str]:
    """A sentence on each thing about these runs that a reader must know before the figures."""
    runs = comparison.runs
    found = _conflicts(comparison)
    found += [
        f"{run.name} is not finished ({run.state}): shown, left out of means and verdicts."
        for run in runs
        if not run.done
    ]
    found += [f"{run.name} has no held-out figures." for run in runs if not run.final]
    if len({run.options["eval.metric"] for run in runs}) > 1:
        found.append(f"The runs differ in eval.metric; that of {runs[0].name} is taken.")
    found += _confounded(comparison)
    for group in comparison.groups:
        seeds = Counter(str(run.options["run.seed"]) for run in group.runs if run.done)
        if repeated := [seed for seed, times in seeds.items() if times > 1]:
            found.append(
                f"{group.label}: seed {', '.join(repeated)} was run more than once; it counts once, with the mean of its runs."
            )
    for key, remark in (("commit", ""), ("engine", "; speeds and hours compare these too")):
        values = Counter(str(run.environment.get(key, "unknown")) for run in runs)
        if len(values) > 1:
            found.append(f"The runs differ in {key}: {'; '.join(values)}{remark}.")
    return found


def _conflicts(comparison: Comparison) -> list[str]:
    """One sentence for each way in which runs cannot be compared with the first."""
    runs, against = comparison.runs, comparison.against
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if run.final:
            reasons = tuple(why_not(run.final, against, part) for part in ("generator", "discriminator"))
            if any(reasons):
                found.setdefault(reasons, []).append(run.name)
    first = next((run.name for run in runs if run.final and run.final == against), "")
    sentences = []
    for (generator, discriminator), names in found.items():
        who = f"{', '.join(names)}: {generator or discriminator}"
        who += f" than {first}" if UNKNOWN not in (generator, discriminator) else ""
        if generator == IN_WORDS["tokenizer"]:
            end = "none of the held-out figures can be compared: losses over different vocabularies measure different things"
        elif generator in (IN_WORDS["data"], UNKNOWN):
            end = "none of the held-out figures can be compared; --rescore FILE judges all runs on one text"
        elif generator:
            end = "none of the held-out figures can be compared; --rescore judges all runs on one corruption"
        else:
            end = "the generator's figures compare, the discriminator's do not; --rescore judges all runs on one corruption"
        sentences.append(f"{who}; {end}.")
    return sentences


def _confounded(comparison: Comparison) -> list[str]:
    """What other shares of replaced tokens in training mean, and which figure is primary for that."""
    if not comparison.confounded:
        return []
    shares = [share for group in comparison.groups if (share := group.replaced_share()) is not None]
    counted = f" ({min(shares):.1%} to {max(shares):.1%})" if shares else ""
    *names, last = (figure.name for figure in FIGURES if figure.key in MOVED_BY_SHARE)
    found = [
        f"The runs were trained on different shares of replaced tokens{counted}. A discriminator expects the share that it was "
        f"trained on: where the common corruption has another one, its {', '.join(names)} and {last} change for that alone. "
        "ROC-AUC, which ranks tokens, does not."
    ]
    if comparison.primary != comparison.metric:
        found.append(f"So the primary figure is ROC-AUC, in place of the {comparison.metric.name} (eval.metric).")
    return found


def explanations(comparison: Comparison) -> list[str]:
    """How to read the figures and the verdicts on them."""
    primary, groups = comparison.primary, comparison.groups
    reason = "eval.metric" if primary == comparison.metric else "in place of eval.metric"
    found = [
        f"Decide by the {primary.name} ({reason}; {primary.better} is better), the other figures explain it. "
        "Final figures are those of the weights that are exported: of the last evaluation, or of the best one where "
        "eval.patience is set. Their 95% interval is what the size of the held-out text allows, its tokens taken as "
        "independent: the true one is somewhat wider."
    ]
    if any(run.rescored for run in comparison.runs):
        found.append(
            "The runs were scored again, with the weights that they hold now, on one text and corruption. The curves and the "
            "best evaluations are still those of the training."
        )
    if any(verdict.low is not None for verdict in comparison.verdicts):
        found.append(
            "Where both sides have at least two seeds, the interval of their difference is Welch's t interval over seeds. It "
            "speaks of other seeds on this held-out text, not of other texts."
        )
    judged = sum(verdict.kind not in ("confounded", "not comparable") for verdict in comparison.verdicts)
    if judged > 1:
        found.append(
            f"These are {judged} comparisons. If no setting had any effect, about 1 in 20 would still stand out by chance. The "
            f"{primary.name} was chosen without a look at the figures; the rest, and the best of many groups, are hints."
        )
    if len(groups) > 1 and any(len(_seeds(group)) == 1 for group in groups):
        found.append(
            "Of a single seed only the noise of the evaluation is known. A difference that is larger may still be what another "
            "seed would have changed: run each setting with several values of run.seed to find out."
        )
    return found


def figure_cell(judgement: Judgement | None, against: Judgement | None, figure: Figure) -> str | None:
    """``0.5291 ± 0.0031`` (95%), without the interval where it is unknown, "not comparable", or None without a value."""
    value = judgement.figures.get(figure.key) if judgement else None
    if value is None:
        return None
    if why_not(judgement, against, figure.part):
        return NOT_COMPARABLE
    error = standard_errors(judgement).get(figure.key)
    return f"{value:.4f}" + (f" ± {Z95 * error:.4f}" if error is not None else "")


def best_cell(run: Experiment, comparison: Comparison) -> str | None:
    """The best value of the primary figure during training, and its step."""
    primary = comparison.primary
    best = run.best(primary.key, primary.better == "higher")
    cell = figure_cell(best, comparison.in_training, primary)
    return f"{best.figures[primary.key]:.4f} at {best.step:,}" if cell not in (None, NOT_COMPARABLE) else cell


def seeded(comparison: Comparison) -> bool:
    """Whether a group has several runs, so that groups are worth a table of their own."""
    return any(len(group.runs) > 1 for group in comparison.groups)


def figure_rows(comparison: Comparison, with_groups: bool = True) -> tuple[list[str], list[list]]:
    """Columns and rows of the runs' held-out figures; which group a run is of where that is asked and not plain."""
    group_of = {id(run): group.label for group in comparison.groups for run in group.runs}
    with_groups = with_groups and len(comparison.groups) > 1 and seeded(comparison)
    with_state = not all(run.done for run in comparison.runs)
    columns = ["run", *["group"] * with_groups, *["state"] * with_state, *(figure.name for figure in FIGURES)]
    columns.append(f"best {comparison.primary.name}")
    rows = [
        [
            run.name,
            *[group_of[id(run)]] * with_groups,
            *[run.state] * with_state,
            *(figure_cell(run.final, comparison.against, figure) for figure in FIGURES),
            best_cell(run, comparison),
        ]
        for run in comparison.runs
    ]
    return columns, rows


def settings_rows(comparison: Comparison) -> tuple[list[str], list[list]]:
    """Columns and rows of the settings that differ, speed and cost of each run."""
    names = differing(comparison.runs)
    columns = ["run", *names, "tokens/s", *COSTS.values()]
    rows = [
        [
            run.name,
            *(run.options.get(name) for name in names),
            tokens_per_second(run),
            *(_cost(run, key) for key in COSTS),
        ]
        for run in comparison.runs
    ]
    return columns, rows


def _cost(run: Experiment, key: str) -> float | str | None:
    value = run.last(key)
    return f"{value:.3g}" if key == "train/flops" and value is not None else value


def group_rows(comparison: Comparison) -> tuple[list[str], list[list]]:
    """Columns and rows of the groups: mean ± standard deviation over seeds."""
    columns = ["group", "seeds", *(figure.name for figure in FIGURES)]
    return columns, [
        [group.label, len(_seeds(group)), *(spread_cell(group, figure, comparison.against) for figure in FIGURES)]
        for group in comparison.groups
    ]


def spread_cell(group: Group, figure: Figure, against: Judgement | None) -> str | None:
    """``0.5291 ± 0.0031``: mean and standard deviation over seeds; of one seed its value alone; None without."""
    values = list(group.by_seed(figure, against).values()) if against else []
    if not values:
        return None
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def _seeds(group: Group) -> set[str]:
    return {str(run.options["run.seed"]) for run in group.runs if run.done and run.final}


def verdict_rows(comparison: Comparison) -> tuple[list[str], list[list]]:
    """Columns and rows of what can be said of each figure of each group."""
    return ["figure", "group", "verdict"], [
        [verdict.figure.name, verdict.group.label, verdict.text] for verdict in comparison.verdicts
    ]


def tokens_per_second(run: Experiment) -> float | None:
    """The median over the log lines, which a slow start or a busy minute does not move."""
    speeds = [record["speed/tokens_per_second"] for record in run.training if record.get("speed/tokens_per_second")]
    return float(np.median(speeds)) if speeds else None


def csv_text(comparison: Comparison) -> str:
    """A row for each run, numbers in full precision; figures that cannot be compared are left empty."""
    names = differing(comparison.runs)
    group_of = {id(run): group.label for group in comparison.groups for run in group.runs}
    rows = []
    for run in comparison.runs:
        row = {"run": run.name, "group": group_of[id(run)], "source": run.source, "state": run.state}
        row |= {name: run.options.get(name) for name in names}
        best = run.best(comparison.primary.key, comparison.primary.better == "higher")
        for prefix, judgement, against in (
            ("final", run.final, comparison.against),
            ("best", best, comparison.in_training),
        ):
            comparable = {
                part: judgement and not why_not(judgement, against, part) for part in ("generator", "discriminator")
            }
            errors = standard_errors(judgement) if judgement else {}
            row[f"{prefix}/step"] = judgement and judgement.step
            for figure in FIGURES:
                known = comparable[figure.part]
                row[f"{prefix}/{figure.key}"] = judgement.figures.get(figure.key) if known else None
                row[f"{prefix}/{figure.key}_se"] = errors.get(figure.key) if known else None
        row["speed/tokens_per_second"] = tokens_per_second(run)
        row |= {key: run.last(key) for key in COSTS}
        held_out = run.final.held_out if run.final else {}
        row |= {key: held_out.get(key) for key in ("tokenizer", "data", "corruption")}
        rows.append(row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def markdown_text(comparison: Comparison) -> str:
    """Flags, all tables, and how to read them."""
    groups = comparison.groups
    tables = [
        (f"Compared with {groups[0].label}", verdict_rows) if comparison.verdicts else None,
        ("Groups: mean ± standard deviation over seeds", group_rows) if seeded(comparison) else None,
        ("Runs: final figures ± 95% interval of the held-out sample", figure_rows),
        ("Settings, speed and cost", settings_rows),
    ]
    parts = ["# Comparison of runs", *_list(flags(comparison))]
    for heading, rows_of in filter(None, tables):
        columns, rows = rows_of(comparison)
        lines = [columns, ["---"] * len(columns), *([cell_text(cell) for cell in row] for row in rows)]
        parts += [f"## {_plain(heading)}", "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)]
    parts += ["## How to read this", *_list(explanations(comparison))]
    return "\n\n".join(parts) + "\n"


def _list(sentences: list[str]) -> list[str]:
    return ["\n".join(f"- {_plain(sentence)}" for sentence in sentences)] if sentences else []


def _plain(text: str) -> str:
    """Text of somebody for markdown: on one line, without what would end a cell or become HTML or a link."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(text.split()))
