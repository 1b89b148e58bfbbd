"""electra-accel: ELECTRA pre-training and domain adaptation, a hand-written loop under Hugging Face Accelerate."""

__version__ = "0.1.0"
