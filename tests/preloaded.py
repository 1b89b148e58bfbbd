"""What the server of tests/processes.py loads before it forks. Not W&B: loaded before a fork it loses records at its end."""

import accelerate.commands.launch  # noqa: F401
import datasets  # noqa: F401
import torch.distributed.elastic.agent.server.local_elastic_agent  # noqa: F401
import torch.distributed.run  # noqa: F401

import electra_accel.finetuning.loop  # noqa: F401
import electra_accel.pretraining.loop  # noqa: F401
import electra_accel.pretraining.planned  # noqa: F401
import electra_accel.pretraining.taking  # noqa: F401
import electra_accel.reports.closing  # noqa: F401
