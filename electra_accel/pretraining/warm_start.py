"""A generator for a discriminator that was released without one: a run of its own that comes first.

In ``run.dir/warm-start`` a generator with fresh layers on the discriminator's embeddings, which are frozen, learns masked
language modelling for ``model.warm_start_steps`` steps: by the loop, the engine and the data of the run itself, with
checkpoints, so that it may be interrupted too. Replaced token detection then begins with the exported generator. Without it
the discriminator would unlearn on noise what it knows: fresh layers propose random tokens.
"""

import copy
from pathlib import Path

from electra_accel.model.loading import load_config
from electra_accel.model.sizes import SIZES
from electra_accel.pretraining import opening
from electra_accel.pretraining.config import Config, Objective, Optim, resolve, starting_rate
from electra_accel.pretraining.networks import generator_of
from electra_accel.pretraining.planned import Planned
from electra_accel.runs import run_folder


def is_due(planned: Planned) -> bool:
    """Whether a run needs a generator that is not there yet; UserError where the one there was made with other settings."""
    config, folder = planned.config, planned.folder
    if planned.checkpoint or config.is_mlm or not config.warm_starts:
        return False
    if not generator_of(folder).is_dir():
        return True
    warm = folder / run_folder.WARM_START
    opening.require_same(warm, configuration(config, folder))
    content = {name: digest for name, digest in planned.content.items() if name != "corrector"}  # a generator has none
    opening.require_same_content(warm, None, config, content, lambda line: None)
    return False


def configuration(config: Config, folder: Path) -> Config:
    """The run that comes before the one in ``folder``.

    Its peak learning rate is the published one for a run from scratch at the discriminator's width (base's for a width that
    was not published), because the generator's layers are fresh. UserError where there is no such discriminator.
    """
    discriminator = load_config("model.discriminator", config.model.discriminator, config.model.revision)
    size = next((size for size in SIZES.values() if size.hidden == discriminator.hidden_size), SIZES["base"])
    warm, default = copy.deepcopy(config), Objective()
    warm.run.dir, warm.run.resume = str(folder / run_folder.WARM_START), "auto"
    warm.objective.kind, warm.model.sharing, warm.model.corrector = "mlm", "tied", None
    warm.objective.generator_weight = default.generator_weight
    warm.objective.discriminator_weight = default.discriminator_weight
    warm.objective.corrective_weight = default.corrective_weight  # None: none for one network
    warm.train.steps, warm.train.epochs, warm.train.flops = config.model.warm_start_steps, None, None
    warm.optim.matrix_learning_rate, warm.optim.generator_factor = None, Optim().generator_factor
    warm.optim.learning_rate, warm.optim.warmup_steps = starting_rate(size.settings, config.optim.kind), None
    warm.eval.metric, warm.eval.patience = None, 0
    warm.tracking.trackers = []
    return resolve(warm)
