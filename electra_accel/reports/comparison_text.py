"""A comparison in words and tables: the notes that a reader must know, the tables of all views, Markdown and csv."""

import csv
import io
from collections import Counter

import numpy as np

from electra_accel.model.figures import Figure
from electra_accel.reports.compare import Comparison, Group, differing
from electra_accel.reports.judgements import IN_WORDS, UNKNOWN, Judgement, figure_text
from electra_accel.reports.page import TEMPLATES, Table, plain

NETWORKS = ("generator", "discriminator")
NOT_COMPARABLE = "not comparable"
COSTS = {"train/tokens": "tokens", "train/hours": "hours", "train/device_hours": "device hours", "train/flops": "FLOPs"}


def flags(comparison: Comparison) -> list[str]:
    """A sentence on each thing about these runs that a reader must know before the figures."""
    runs = comparison.runs
    found = _conflicts(comparison)
    unfinished = [run for run in runs if not run.done]
    found += [f"{run.name} is not finished ({run.state}): shown, left out of means and verdicts." for run in unfinished]
    found += [f"{run.name} has no held-out figures." for run in runs if not run.final]
    if len({run.options["eval.metric"] for run in runs}) > 1:
        found.append(f"The runs differ in eval.metric; that of {runs[0].name} is taken.")
    found += _confounded(comparison)
    for group in comparison.groups:
        seeds = Counter(run.seed for run in group.runs if run.done)
        if repeated := ", ".join(seed for seed, times in seeds.items() if times > 1):
            found.append(f"{group.label}: seed {repeated} was run more than once; it counts once, with their mean.")
    for key, remark in (("commit", ""), ("engine", "; this also affects speeds and hours")):
        values = Counter(str(run.environment.get(key, "unknown")) for run in runs)
        if len(values) > 1:
            found.append(f"The runs differ in {key}: {'; '.join(values)}{remark}.")
    return found


def _conflicts(comparison: Comparison) -> list[str]:
    """One sentence for each way in which runs cannot be compared with the first."""
    judged, against = [run for run in comparison.runs if run.final], comparison.against
    found: dict[tuple[str, ...], list[str]] = {}
    for run in judged:
        reasons = tuple(run.final.why_not(against, network) for network in NETWORKS)
        if any(reasons):
            found.setdefault(reasons, []).append(run.name)
    first = next((run.name for run in judged if run.final == against), "")
    sentences = []
    for (generator, discriminator), names in found.items():
        who = f"{', '.join(names)}: {generator or discriminator}"
        who += f" than {first}" if UNKNOWN not in (generator, discriminator) else ""
        end = "none of the held-out figures can be compared"
        if generator == IN_WORDS["tokenizer"]:
            end += ": losses over different vocabularies measure different things"
        elif generator in (IN_WORDS["data"], UNKNOWN):
            end += "; --rescore FILE judges all runs on one text"
        elif generator:
            end += "; --rescore judges all runs on one corruption"
        else:
            end = "the generator's figures compare, the discriminator's do not; --rescore judges all runs on one corruption"
        sentences.append(f"{who}; {end}.")
    return sentences


def _confounded(comparison: Comparison) -> list[str]:
    """What other shares of replaced tokens in training mean, and which figure is primary for that."""
    if not comparison.confounded:
        return []
    shares = [share for group in comparison.groups if (share := group.replaced_share) is not None]
    counted = f" ({min(shares):.1%} to {max(shares):.1%})" if shares else ""
    *names, last = (figure.name for figure in comparison.figures if figure.follows_share)
    found = [
        f"The runs were trained on different shares of replaced tokens{counted}. A discriminator expects the share that it was "
        f"trained on. Where the common corruption has another one, its {', '.join(names)} and {last} change for that reason "
        "alone. ROC-AUC, which ranks tokens, does not."
    ]
    if comparison.primary != comparison.metric:
        found.append(f"So the primary figure is ROC-AUC, in place of the {comparison.metric.name} (eval.metric).")
    return found


def explanations(comparison: Comparison) -> list[str]:
    """How to read the figures and the verdicts on them."""
    verdicts, groups = comparison.verdicts, comparison.groups
    text = TEMPLATES.get_template("comparison.txt").render(
        primary=comparison.primary,
        metric=comparison.metric,
        rescored=any(run.rescored for run in comparison.runs),
        intervals=any(verdict.low is not None for verdict in verdicts),
        judged=sum(verdict.kind not in ("confounded", "not comparable") for verdict in verdicts),
        single_seeds=len(groups) > 1 and any(_seeds(group) == 1 for group in groups),
    )
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def tables(comparison: Comparison) -> dict[str, tuple[str, Table]]:
    """All tables: ``{heading: (what the cells are, table)}``."""
    found = {}
    if comparison.verdicts:
        rows = [[verdict.figure.name, verdict.group.label, verdict.text] for verdict in comparison.verdicts]
        found[f"Compared with {comparison.groups[0].label}"] = "", Table(["figure", "group", "verdict"], rows)
    if comparison.seeded:
        found["Groups"] = "mean ± standard deviation over seeds", _groups(comparison)
    found["Runs"] = "final figures ± 95% interval of the held-out sample", runs_table(comparison)
    found["Settings, speed and cost"] = "", settings_table(comparison)
    return found


def _groups(comparison: Comparison) -> Table:
    figures, rows = comparison.figures, []
    for group in comparison.groups:
        cells = []
        for figure in figures:
            values = list(group.by_seed(figure, comparison.against).values())
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4f}{spread}" if values else None)
        rows.append([group.label, _seeds(group), *cells])
    return Table(["group", "seeds", *(figure.name for figure in figures)], rows)


def _seeds(group: Group) -> int:
    return len({run.seed for run in group.judged})


def runs_table(comparison: Comparison, with_groups: bool = True) -> Table:
    """The runs' held-out figures; with the group of each run where that is asked and not plain."""
    with_groups = with_groups and len(comparison.groups) > 1 and comparison.seeded
    with_state = not all(run.done for run in comparison.runs)
    figures, primary = comparison.figures, comparison.primary
    columns = ["run", *["group"] * with_groups, *["state"] * with_state, *(figure.name for figure in figures)]
    rows = []
    for run in comparison.runs:
        facts = [run.name, *[comparison.group_of(run).label] * with_groups, *[run.state] * with_state]
        cells = [_figure_cell(run.final, comparison.against, figure) for figure in figures]
        best = run.best(primary)
        cell = _figure_cell(best, comparison.in_training, primary)
        if cell not in (None, NOT_COMPARABLE):
            cell = f"{best.figures[primary.key]:.4f} at {best.step:,}"
        rows.append([*facts, *cells, cell])
    return Table([*columns, f"best {primary.name}"], rows)


def _figure_cell(judgement: Judgement | None, against: Judgement | None, figure: Figure) -> str | None:
    """``0.5291 ± 0.0031`` (95%), without the interval where it is unknown, "not comparable", or None without a value."""
    value = judgement.figures.get(figure.key) if judgement else None
    if value is None:
        return None
    if judgement.why_not(against, figure.network):
        return NOT_COMPARABLE
    return figure_text(value, judgement.errors.get(figure.key))


def settings_table(comparison: Comparison) -> Table:
    """The settings that differ, speed and cost of each run."""
    names, rows = differing(comparison.runs), []
    for run in comparison.runs:
        costs = {key: run.last(key) for key in COSTS}
        if costs["train/flops"] is not None:
            costs["train/flops"] = f"{costs['train/flops']:.3g}"
        rows.append([run.name, *(run.options.get(name) for name in names), run.tokens_per_second, *costs.values()])
    return Table(["run", *names, "tokens/s", *COSTS.values()], rows)


def csv_text(comparison: Comparison) -> str:
    """A row for each run, numbers in full precision; figures that cannot be compared are left empty."""
    names, rows = differing(comparison.runs), []
    for run in comparison.runs:
        group = comparison.group_of(run).label
        row = {"run": run.name, "group": group, "source": run.source, "state": run.state}
        row |= {name: run.options.get(name) for name in names}
        best = run.best(comparison.primary), comparison.in_training
        for prefix, judgement, against in (("final", run.final, comparison.against), ("best", *best)):
            row[f"{prefix}/step"] = judgement and judgement.step
            for figure in comparison.figures:
                compares = judgement and not judgement.why_not(against, figure.network)
                values, errors = (judgement.figures, judgement.errors) if compares else ({}, {})
                row[f"{prefix}/{figure.key}"] = values.get(figure.key)
                row[f"{prefix}/{figure.key}_se"] = errors.get(figure.key)
        row["speed/tokens_per_second"] = run.tokens_per_second
        row |= {key: run.last(key) for key in COSTS}
        held_out = run.final.held_out if run.final else {}
        rows.append(row | {key: held_out.get(key) for key in ("tokenizer", "data", "corruption")})
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def markdown_text(comparison: Comparison) -> str:
    """Flags, all tables, and how to read them."""
    notes, reading = (
        "\n".join(f"- {plain(sentence)}" for sentence in said) for said in (flags(comparison), explanations(comparison))
    )
    parts = ["# Comparison of runs", notes]
    for heading, (caption, table) in tables(comparison).items():
        parts += [f"## {plain(heading)}" + f": {caption}" * bool(caption), table.markdown()]
    return "\n\n".join(filter(None, [*parts, "## How to read this", reading])) + "\n"
