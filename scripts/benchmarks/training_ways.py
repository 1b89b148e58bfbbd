"""One way of training, a process that throughput.py starts: WAY:PRECISION DEVICE FOLDER, then options of pretrain.py.

It makes a first step, says so, and then trains whenever a line on stdin gives it a number of seconds.
"""

import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.models.electra.modeling_electra import ElectraSelfAttention

from electra_accel.cli import exit_with_one_line
from electra_accel.data.store import TokenStore
from electra_accel.engines.engine import Engine
from electra_accel.engines.open import open_engine
from electra_accel.engines.operators import Operators
from electra_accel.pretraining.config import Objective, resolve
from electra_accel.pretraining.config_parser import parse
from electra_accel.pretraining.loop import engine_micro_step
from electra_accel.pretraining.networks import joint_module, networks, shapes
from electra_accel.pretraining.optim import build_optimizer
from electra_accel.pretraining.planned import Planned, plan
from electra_accel.runs.micro_steps import micro_steps
from electra_accel.terminal import Terminal, quiet_libraries

COUNTABLE = (
    "trainer",
    "trainer-flash",
    "trainer-batch",
    "trainer-slots",
    "ours",
)  # their operators are sent one by one
SETTLE, TIMED = 8, 3  # steps in which graphs are recorded and checked; steps whose time tells how many a turn has


class Turns:
    """When this process computes. A way calls :meth:`begin` before each step, its batch at hand, and :meth:`end` after it.

    The first step is a stretch by itself, then one whose operators are counted, then those that settle, then those that are
    timed, and then there is one a turn.

    Args:
        flops_per_token: of the model, forward and backward.
        way: see throughput.py.
        answers: where turns are told to.
    """

    def __init__(self, flops_per_token: float, device: str, way: str, answers: TextIO):
        self.known: dict[str, Any] = {"flops_per_token": flops_per_token, "operators": None}
        self.cuda, self.countable, self.counter = device == "cuda", way in COUNTABLE, Operators()
        self.answers, self.stretches = answers, iter([1, 1, SETTLE if "recorded" in way else 1, TIMED])
        self.number = 0
        self._start(next(self.stretches))

    def begin(self) -> None:
        self.waited += time.perf_counter() - self.ended
        if self.number == 1 and self.countable:
            self.counter.__enter__()

    def end(self, tokens: int) -> None:
        self.left, self.tokens = self.left - 1, self.tokens + tokens
        if self.number == 1 and self.countable:
            self.counter.__exit__(None, None, None)
            self.known["operators"] = self.counter.sent.total()
        if not self.left:
            if self.cuda:
                torch.cuda.synchronize()
            self._next(time.perf_counter() - self.began)
        self.ended = time.perf_counter()

    def _next(self, seconds: float) -> None:
        if self.number == 0:
            self.known["first_step"] = seconds
        self.number += 1
        if steps := next(self.stretches, 0):
            return self._start(steps)
        if self.number == 4:
            self.step_seconds = seconds / TIMED
        told = self.known | {
            "seconds": seconds,
            "tokens": self.tokens,
            "waited": self.waited,
            "memory_gb": self._memory(),
        }
        try:
            print(json.dumps(told), file=self.answers, flush=True)
            asked = sys.stdin.readline()
        except BrokenPipeError:
            asked = ""
        if not asked:  # whoever asked is gone
            os._exit(0)
        self._start(max(1, round(float(asked) / self.step_seconds)))

    def _start(self, steps: int) -> None:
        self.left, self.tokens, self.waited = steps, 0, 0.0
        self.began = self.ended = time.perf_counter()

    def _memory(self) -> float:
        """Of this process, or on the GPU, at most so far, in GB."""
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


# --- this project -------------------------------------------------------------------------------------------------------


def ours(planned: Planned, engine: Engine, turns: Turns) -> None:
    """The steps of pretraining/loop.py without logging, judging and saving."""
    config = planned.config
    tokenizer = planned.prepared.tokenizer
    model = joint_module(config, networks(config, tokenizer, print), tokenizer, print)
    optimizer = build_optimizer(model, config.optim)
    engine.prepare(model, optimizer, None, max_norm=config.optim.max_grad_norm, compile=config.train.compile)
    engine.model.train()
    micro_step = engine_micro_step(engine, config, lambda line: print(line, file=sys.stderr))
    for number, step in enumerate(planned.loader.steps()):
        turns.begin()
        counts = torch.stack([batch.counts() for batch in step.micro_batches]).sum(0).double().to(engine.device)
        batches = [batch.to(engine.device) for batch in step.micro_batches]
        for batch in micro_steps(engine, config.run.seed, number, batches):
            micro_step(*counts, *batch.tensors())
        engine.step(lambda peak: peak / 10)
        turns.end(step.tokens)


# --- as tutorials do it -------------------------------------------------------------------------------------------------


@dataclass
class Padded:
    """Makes a batch of examples by padding; masks are drawn in the training step, as tutorials do."""

    pad_id: int
    length: int | None  # None: that of the longest

    def __call__(self, examples: list[list[int]]) -> dict[str, Any]:
        longest = self.length or max(map(len, examples))
        rows = [tokens + [self.pad_id] * (longest - len(tokens)) for tokens in examples]
        return {"input_ids": torch.tensor(rows), "tokens": sum(map(len, examples))}


class Examples(torch.utils.data.Dataset):
    """One by one, as lists of token ids."""

    def __init__(self, store: TokenStore):
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, number: int) -> list[int]:
        return self.store.read(np.array([number]))[0].tolist()


class Pair(torch.nn.Module):
    """The two networks as the objective is defined: Clark et al., ELECTRA, section 2, with the loss of equation 3.

    Args:
        tokenizer: whose special tokens are never selected.
        slots_only: the LM head reads the selected positions and no others.
    """

    def __init__(
        self,
        generator: PreTrainedModel,
        discriminator: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        objective: Objective,
        slots_only: bool,
    ):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.objective, self.slots_only = objective, slots_only
        self.pad_id, self.mask_id = tokenizer.pad_token_id, tokenizer.mask_token_id
        self.special = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, self.pad_id])

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        objective, device = self.objective, input_ids.device
        real = input_ids != self.pad_id
        may = real & ~torch.isin(input_ids, self.special.to(device))
        chance = torch.rand(input_ids.shape, device=device).masked_fill(~may, 2.0)
        wanted = (may.sum(1, keepdim=True) * objective.mask_prob + 0.5).floor().clamp(min=1)  # as this project
        selected = may & (chance.argsort(1).argsort(1) < wanted)
        shown = torch.where(
            torch.rand(input_ids.shape, device=device) < objective.mask_token_prob, self.mask_id, input_ids
        )
        masked = torch.where(selected, shown, input_ids)
        if self.slots_only:
            hidden = self.generator.electra(masked, attention_mask=real).last_hidden_state[selected]
            logits = self.generator.generator_lm_head(self.generator.generator_predictions(hidden))
            generator_loss = F.cross_entropy(logits.float(), input_ids[selected])
        else:
            every = self.generator(masked, attention_mask=real).logits
            labels = input_ids.masked_fill(~selected, -100)
            generator_loss = F.cross_entropy(every.flatten(0, 1).float(), labels.flatten())
            logits = every[selected]
        with torch.no_grad():
            noise = -torch.log(-torch.log(torch.rand_like(logits, dtype=torch.float32).clamp(1e-9, 1 - 1e-7)))
            corrupted = input_ids.clone()
            corrupted[selected] = (logits.float() + noise).argmax(-1)
        verdicts = self.discriminator(corrupted, attention_mask=real).logits
        replaced = (corrupted != input_ids)[real].float()
        discriminator_loss = F.binary_cross_entropy_with_logits(verdicts[real].float(), replaced)
        return objective.generator_weight * generator_loss + objective.discriminator_weight * discriminator_loss


class RTDTrainer(Trainer):
    """compute_loss overridden, as in tutorials."""

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, **_: Any
    ) -> torch.Tensor:
        self.tokens = inputs["tokens"]
        return model(inputs["input_ids"])


class TakeTurns(TrainerCallback):
    def __init__(self, turns: Turns):
        self.turns = turns
        self.trainer: RTDTrainer | None = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.turns.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.turns.end(self.trainer.tokens)


def trainer(way: str, planned: Planned, engine: Engine, turns: Turns, folder: Path) -> None:
    """Hugging Face's Trainer, with as many rows a step as this project has bins."""
    config, tokenizer = planned.config, planned.prepared.tokenizer
    pair = networks(config, tokenizer, print)
    for module in pair.generator.modules(), pair.discriminator.modules():
        for attention in (each for each in module if isinstance(each, ElectraSelfAttention)):
            attention.dropout.p = config.model.dropout if way == "trainer" else 0.0
    how = TrainingArguments(
        output_dir=str(folder), max_steps=10**9, per_device_train_batch_size=planned.loader.plan.bins_per_step,
        learning_rate=1e-5, max_grad_norm=config.optim.max_grad_norm, bf16=engine.precision == "bf16",
        use_cpu=engine.device.type == "cpu", save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        remove_unused_columns=False, seed=1,
    )  # fmt: skip
    callback = TakeTurns(turns)
    callback.trainer = RTDTrainer(
        model=Pair(*pair, tokenizer, config.objective, slots_only=way == "trainer-slots"),
        args=how,
        train_dataset=Examples(planned.prepared.train),
        data_collator=Padded(
            tokenizer.pad_token_id, config.data.max_length if way in ("trainer", "trainer-flash") else None
        ),
        callbacks=[callback],
    )
    callback.trainer.train()


def set_up(name: str, device: str, folder: Path, options: list[str]) -> tuple[Planned, Engine]:
    """Text, plan and engine of a way; no networks yet."""
    way, _, precision = name.partition(":")
    config = resolve(parse([*options, "--train.precision", precision, "--run.dir", str(folder)], __doc__).config)
    if "layers" in way:
        config.train.compile = "layers"
    if "recorded" in way:
        config.train.cuda_graphs = "auto"
    quiet_libraries()
    how = dict(precision=precision, optimizer=config.optim.kind, cpu=device == "cpu")
    engine = open_engine(**how, trackers=[], folder=folder)
    return plan(config, folder, engine, Terminal(speaks=False)), engine


def main() -> None:
    (name, device, folder), options = sys.argv[1:4], sys.argv[4:]
    sys.stdout, answers = sys.stderr, sys.stdout
    planned, engine = set_up(name, device, Path(folder), options)
    config, one_pass, way = planned.config, planned.one_pass, name.partition(":")[0]
    flops = one_pass.costs(*shapes(config, planned.prepared.tokenizer)).of_model(one_pass.tokens, one_pass.selected)
    turns = Turns(flops / one_pass.tokens, device, way, answers)
    if way.startswith("trainer"):
        trainer(way, planned, engine, turns, Path(folder))
    else:
        ours(planned, engine, turns)


if __name__ == "__main__":
    exit_with_one_line(main)
