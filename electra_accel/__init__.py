"""electra-accel: ELECTRA pre-training and domain adaptation, a hand-written loop under Hugging Face Accelerate."""

import os

__version__ = "0.1.0"

# For torch, which reads it when it is imported. An idle thread of OpenMP spins before it sleeps, by default ten times as long.
# While it spins on a busy machine, it holds the core that the thread it waits for needs (docs/decisions.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
