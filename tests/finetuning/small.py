"""A very small encoder and a task that it can learn in seconds: is there a bad word in the text?"""

import json
import random
from pathlib import Path

from transformers import BertTokenizer, ElectraConfig, ElectraForPreTraining

from electra_accel.finetuning.config import Task, resolve
from electra_accel.finetuning.kinds.registry import KINDS
from electra_accel.finetuning.tasks import TaskData

WORDS = [f"w{i}" for i in range(20)] + ["bad", "good"]


def make_encoder(folder: Path, dropout: float = 0.1, seed: int = 1) -> Path:
    """A folder as pre-training leaves it: two layers, hidden size 32, word pieces of one digit."""
    import torch

    torch.manual_seed(seed)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "w", "bad", "good", *(f"##{digit}" for digit in range(10))]
    config = ElectraConfig(
        vocab_size=len(pieces),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    ElectraForPreTraining(config).save_pretrained(folder)
    BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


def rows(number: int, seed: int = 1) -> list[dict]:
    """Records with text, label, score, tokens and tags."""
    chance = random.Random(seed)
    found = []
    for _ in range(number):
        words = chance.choices(WORDS[:-2], k=chance.randint(1, 8))
        is_bad = chance.random() < 0.5
        words.insert(chance.randint(0, len(words)), "bad" if is_bad else "good")
        tags = ["B-BAD" if word == "bad" else "O" for word in words]
        score = words.count("bad") + 0.1 * len(words)
        found.append(
            {"text": " ".join(words), "label": "no" if is_bad else "yes", "score": score, "tokens": words, "tags": tags}
        )
    return found


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def task(**fields) -> Task:
    return resolve(Task(**{"kind": "classification", "train_file": "none.jsonl"} | fields))


def task_data(*known, splits=None, notes=(), **fields) -> TaskData:
    """Of a ``task``; ``known``: what its kind is made with, labels or mean and deviation."""
    wanted = task(**fields)
    return TaskData(wanted, splits or {}, KINDS[wanted.kind](*known), notes)
