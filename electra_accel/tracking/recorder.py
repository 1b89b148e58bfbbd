"""Where figures and samples of a run go: metrics.jsonl and samples.jsonl always, the trackers beside them.

The x-axes are our own ``train/step`` and ``train/tokens``: W&B refuses rows at or before the last step that it saw, so a run
that is resumed from an earlier checkpoint would lose the replayed steps if it used W&B's counter.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from electra_accel.errors import one_line
from electra_accel.options.declare import plain
from electra_accel.options.groups import Tracking
from electra_accel.runs import run_folder
from electra_accel.tracking.calibration import calibration_chart
from electra_accel.tracking.samples import Reconstruction, join
from electra_accel.tracking.tokens import reconstructions_panel
from electra_accel.tracking.trackers import SUMMARIES, destination, wandb_mode, wandb_project, wandb_settings

SAMPLE_COLUMNS = ["step", "example", "original", "masked", "generated", "most probable", "verdict", "probabilities"]


class Recorder:
    """Where figures and samples of a run go.

    Args:
        accelerator: its trackers are used; nothing is written on processes other than its main one.
        folder: the run folder.
        samples: tracking.samples: ``all`` (files and trackers), ``local`` (files only), ``none``.
        warn: prints one line.
        page: writes the page of the run in a folder; None: it has none.
    """

    def __init__(
        self,
        accelerator,
        folder: Path,
        *,
        samples: str,
        warn: Callable[[str], None],
        page: Callable[[Path], object] | None = None,
    ):
        self.accelerator, self.folder, self.samples, self.warn, self.page = accelerator, folder, samples, warn, page
        self.trackers: list = []
        self.dropped: set[str] = set()  # names of those that failed
        self.mode: str | None = None  # of W&B, once it is started
        self.report_failed = False

    def start(
        self, tracking: Tracking, settings: Mapping[str, Any], step: int, wandb: dict[str, Any], mode: str | None = None
    ) -> str:
        """Start the trackers that the run was given; W&B offline where it cannot be reached. On the main process.

        Args:
            settings: of the run, by name.
            step: that the run goes on from.
            wandb: its name, id, group, job_type and tags there (see :func:`wandb_settings`).
            mode: of W&B, if it is not :func:`wandb_mode`. The one that it is in afterwards is ``self.mode``.

        Returns:
            In words where the run is recorded (see :func:`destination`): a tracker that fails is left out, and never stops
            training.
        """
        if tracking.trackers == []:
            return run_folder.METRICS
        self.mode = mode or wandb_mode(tracking.mode)
        wandb = wandb_settings(tracking, self.folder, wandb)
        others = {"tensorboard": {"purge_step": step + 1}} if step else {}  # what is trained again is not shown twice

        def begin(tracker) -> None:
            self.accelerator.trackers.clear()  # it keeps those of a run before, and those that failed
            self.accelerator.log_with = [tracker]
            self.accelerator.init_trackers(
                wandb_project(tracking.project),
                config=plain(settings),
                init_kwargs=others | {"wandb": wandb | {"mode": self.mode}},
            )
            pages.extend(_define_axes(each.tracker) for each in self.accelerator.trackers if each.name == "wandb")
            started.extend(self.accelerator.trackers)

        wanted, started, pages = list(self.accelerator.log_with), [], []
        self.accelerator.project_configuration.logging_dir = str(self.folder)  # of trackers that write files
        for tracker in wanted:  # one at a time: where one fails, the others start
            name = _name(tracker)
            try:
                try:
                    begin(tracker)
                except Exception as error:
                    if name != "wandb" or self.mode not in ("online", "shared"):
                        raise
                    self.warn(
                        f"W&B cannot be reached ({one_line(error)}): the run is recorded offline, to be uploaded later"
                    )
                    importlib.import_module("wandb").teardown()  # its service still holds the run's id
                    self.mode = "offline"
                    begin(tracker)
            except Exception as error:  # a tracker never stops training, whatever it throws
                self.dropped.add(name)
                self.warn(f"tracker {name} could not be started ({one_line(error)}); metrics.jsonl goes on without it")
        self.accelerator.log_with, self.accelerator.trackers[:], self.trackers = wanted, started, started
        names = [_name(tracker) for tracker in wanted if _name(tracker) not in self.dropped]
        return " ".join([destination(tracking, names, self.folder, self.mode), *filter(None, pages)])

    def metrics(self, values: dict[str, float], calibration: list[tuple[float, float, int]] | None = None) -> None:
        """``values`` have grouped names (train/…, eval/…, speed/…); they must hold train/step.

        Args:
            calibration: of the discriminator, at an evaluation (``model.metrics.Calibration.bins``).
        """
        if not self.accelerator.is_main_process:
            return
        step = values["train/step"]
        known = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        more = {} if calibration is None else {"eval/calibration": calibration}
        run_folder.append_jsonl(self.folder / run_folder.METRICS, {"step": step, **known, **more})

        def log(tracker) -> None:
            if tracker.name == "wandb":
                import wandb

                picture = {} if not calibration else {"eval/calibration": wandb.Plotly(calibration_chart(calibration))}
                tracker.log(values | picture)
            else:
                tracker.log(values, step=step)

        self._track(log)

    def reconstructions(self, found: list[Reconstruction], axes: dict[str, float]) -> None:
        """``axes``: as in ``Progress.axes``."""
        if self.samples == "none":
            return
        for sample in found:
            record = sample.record(axes["train/step"], axes["train/epoch"])
            run_folder.append_jsonl(self.folder / run_folder.SAMPLES, record)
        if self.samples == "all":
            self._track(lambda tracker: _log_samples(tracker, found, axes))

    def summary(self, values: dict[str, float], step: int) -> None:
        """Single values about the whole run (``story/…``), for the trackers."""

        def log(tracker) -> None:
            if tracker.name == "wandb":
                tracker.tracker.summary.update(values)
            else:
                tracker.log(values, step=step)

        self._track(log)

    def report(self) -> None:
        """Bring report.html up to date."""
        if not self.accelerator.is_main_process or self.page is None or self.report_failed:
            return
        try:
            self.page(self.folder)
        except Exception as error:  # a page is not worth a run
            self.report_failed = True
            self.warn(f"report.html could not be written ({one_line(error)}); metrics.jsonl and samples.jsonl go on")

    def close(self) -> None:
        self._track(lambda tracker: tracker.finish())
        if "wandb" in self.dropped:  # else its own hook at Python's end prints a traceback where its service is gone
            with suppress(Exception):
                importlib.import_module("wandb").teardown()

    def _track(self, call: Callable) -> None:
        """Call on each tracker; one that fails is dropped with a warning, training goes on."""
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as error:  # whatever a tracker throws, the run is worth more
                self.trackers.remove(tracker)
                self.dropped.add(tracker.name)
                self.warn(f"tracker {tracker.name} failed ({one_line(error)}) and is dropped; metrics.jsonl goes on")


def _name(tracker) -> str:
    """Of a tracker of Accelerate's, or of its enumeration."""
    return str(getattr(tracker, "value", getattr(tracker, "name", tracker)))


def _define_axes(run) -> str | None:
    """Tell W&B what curves are drawn over and how figures are summed up; returns the address of the run's page, if any."""
    run.define_metric("train/step")
    run.define_metric("train/tokens")
    run.define_metric("*", step_metric="train/step")
    for name, summary in SUMMARIES.items():
        run.define_metric(name, step_metric="train/step", summary=summary)
    return run.url


def _log_samples(tracker, found: list[Reconstruction], axes: dict[str, float]) -> None:
    """One table and one page per step, so that what is stored grows linearly (W&B's tables are immutable)."""
    if tracker.name == "wandb":
        import wandb

        more = ["corrected"] * any(sample.corrected for sample in found)
        rows = [
            [axes["train/step"], *_row(sample), *(join(sample.corrected_pieces()) for _ in more)] for sample in found
        ]
        tracker.log(
            {
                "samples/reconstructions": wandb.Table(columns=SAMPLE_COLUMNS + more, data=rows),
                "samples/highlighted": wandb.Html(reconstructions_panel(found), inject=False),
                **axes,
            }
        )
    elif tracker.name == "tensorboard":
        lines = [f"- {_in_text(sample)} ({sample.verdicts()})" for sample in found]
        tracker.log({"samples/reconstructions": "\n".join(lines)}, step=axes["train/step"])


def _row(sample: Reconstruction) -> list:
    views = (sample.original_pieces(), sample.input_pieces(), sample.output_pieces(), sample.best_pieces())
    return [sample.example, *map(join, views), sample.verdicts(), sample.probabilities()]


def _in_text(sample: Reconstruction) -> str:
    corrected = f"; corrected: {join(sample.corrected_pieces())}" if sample.corrected else ""
    return join(sample.output_pieces()) + corrected
