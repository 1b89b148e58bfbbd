"""``scripts/pretrain.py`` once or several times in this process, with every random decision of the training steps written down.

    accelerate launch … tests/parity/recorded.py cases.json

Each case is a list of options for pretrain.py; ``--float64`` and ``--poisoned`` among them are ours. Each run folder
gets recorded-<rank>.npz.
"""

import json
import os
import runpy
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from electra_accel.batch import RTDBatch  # noqa: E402
from electra_accel.engines.engine import Engine  # noqa: E402
from electra_accel.model.rtd import ReplacedTokenDetection, RTDOutput  # noqa: E402
from electra_accel.pretraining import loop, networks  # noqa: E402
from tests.shared_embeddings import assert_shared  # noqa: E402

recorded: dict[str, list[np.ndarray]] = defaultdict(list)
float64, sharing, poisoned, present_step = False, "tied", False, 0
POISONED_STEP = 4


class Recording(ReplacedTokenDetection):
    """Writes down, for each training micro-batch: order, masks, samples, and the interval that each sample was drawn from."""

    def __init__(self, *networks, **options):
        super().__init__(*networks, **options)
        if float64:
            self.double()
        self.generator.generator_lm_head.register_forward_hook(self._keep_logits)

    def _keep_logits(self, module, inputs, logits: torch.Tensor) -> None:
        self.logits = logits.detach()

    def forward(self, batch: RTDBatch, replacements: torch.Tensor | None = None) -> RTDOutput:
        # In half precision the linear layers hold copies here (engines/half_weights.py).
        if isinstance(self.generator.generator_lm_head.weight, torch.nn.Parameter):
            assert_shared(self.generator, self.discriminator, sharing, self.corrector)
        output = super().forward(batch, replacements)
        if self.training:
            low, high = boundaries(self.logits, output.sampled)
            at_slots = batch.corrupted_ids.gather(1, batch.slot_positions)
            for name, value in {
                "examples": batch.examples,
                "positions": batch.slot_positions,
                "used": batch.slot_used,
                "corrupted": at_slots,
                "sampled": output.sampled,
                "low": low,
                "high": high,
            }.items():
                recorded[name].append(value.cpu().numpy())
            is_last = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
            if poisoned and is_last and present_step == POISONED_STEP:
                wrong = {name: getattr(output, name) * float("nan") for name in ("discriminator_loss_sum", "counters")}
                return output._replace(**wrong)
        return output


def boundaries(logits: torch.Tensor, sampled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the sampled token's interval of the cumulative distribution begins and ends.

    Plainly, over the whole vocabulary, float64 [R, S] each, as shares of the total.
    """
    log_probs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    cumulative = log_probs.exp().to(torch.float64).cumsum(-1)
    cumulative = cumulative / cumulative[..., -1:]
    high = cumulative.gather(2, sampled[:, :, None]).squeeze(2)
    low = torch.nn.functional.pad(cumulative, (1, 0)).gather(2, sampled[:, :, None]).squeeze(2)
    return low, high


def noting_steps(micro_steps):
    """The loop's micro-steps; ``present_step`` says which step they are of."""

    def noted(engine, seed: int, step: int, micro_batches):
        global present_step
        present_step = step
        yield from micro_steps(engine, seed, step, micro_batches)

    return noted


def main(cases: list[list[str]]) -> None:
    global float64, sharing, poisoned
    loop.micro_steps = noting_steps(loop.micro_steps)
    networks.ReplacedTokenDetection = Recording
    Engine.leave = lambda engine, patience: None  # the process group serves all cases
    for options in cases:
        recorded.clear()
        float64, sharing = "--float64" in options, "none" if "--model.sharing=none" in options else "tied"
        poisoned = "--poisoned" in options
        options = [option for option in options if option not in ("--float64", "--poisoned")]
        sys.argv = [str(ROOT / "scripts" / "pretrain.py"), *options]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as exit_:
            if exit_.code:
                raise
        folder = next(option.partition("=")[2] for option in options if option.startswith("--run.dir="))
        rank = os.environ.get("RANK", "0")
        np.savez(Path(folder) / f"recorded-{rank}.npz", **{name: np.stack(values) for name, values in recorded.items()})
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # nobody leaves while another still talks to it
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
