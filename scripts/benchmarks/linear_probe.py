"""What do frozen encoders know of a task? Logistic regression on their mean-pooled hidden states, layer by layer.

    python scripts/benchmarks/linear_probe.py --models runs/general/discriminator untrained:runs/general/discriminator \\
        --train train.tsv --dev dev.tsv --train_rows 2000

Files have columns text and label. The last line is a logistic regression on the tokens (tf-idf), without any encoder:
what the words alone say. Untrained networks show what a random projection of the words keeps.
"""

import sys
from pathlib import Path

import numpy as np

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError

BATCH = 64


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help="as of scripts/finetune.py")
    parser.add_argument("--train", type=Path, required=True, metavar="FILE")
    parser.add_argument("--dev", type=Path, required=True, metavar="FILE")
    parser.add_argument("--train_rows", type=int, metavar="N", help="as of scripts/finetune.py [all]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the choice of rows and new weights [1]")
    asked = parser.parse_args(sys.argv[1:])

    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from electra_accel.finetuning.config import Task, resolve
    from electra_accel.finetuning.heads import build, names, open_encoder
    from electra_accel.finetuning.tasks import encode, load_task
    from electra_accel.text.letters import about
    from electra_accel.text.unknown import told

    files = dict(train_file=str(asked.train), dev_file=str(asked.dev), train_rows=asked.train_rows)
    data = load_task(resolve(Task(kind="classification", **files)))
    splits = [data.rows(split, asked.seed) for split in ("train", "dev")]
    targets = [[row.label for row in rows] for rows in splits]
    for model, name in zip(asked.models, names(asked.models), strict=True):
        encoder = open_encoder(model, name)
        network = build(encoder, data, asked.seed).base_model.eval()
        encoded = [encode(rows, data, encoder.tokenizer) for rows in splits]
        on_tokens = told({"train": encoded[0].unknown, "dev": encoded[1].unknown})
        for line in (*encoder.notes, *(about(name, line) for line in on_tokens)):
            print(line, file=sys.stderr)
        train, dev = (pooled(network, split) for split in encoded)
        if not (np.isfinite(train).all() and np.isfinite(dev).all()):
            raise UserError(
                f"--models: the hidden states of {model} are not finite: its weights are damaged; take others"
            )
        scores = []
        for layer in range(train.shape[1]):
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
            scores.append(probe.fit(train[:, layer], targets[0]).score(dev[:, layer], targets[1]))
        print(f"{name}: embeddings {scores[0]:.4f}, layers", *(f"{score:.4f}" for score in scores[1:]), flush=True)
    words = make_pipeline(TfidfVectorizer(analyzer=encoder.tokenizer.tokenize), LogisticRegression(C=3, max_iter=500))
    texts = [[row.texts[0] for row in rows] for rows in splits]
    print(f"tokens of {name}, no encoder: {words.fit(texts[0], targets[0]).score(texts[1], targets[1]):.4f}")


def pooled(network, encoded) -> np.ndarray:
    """The mean over each text's tokens of every hidden state: float32 [texts, layers + 1, hidden size]."""
    import torch

    by_length = np.argsort(encoded.lengths(), kind="stable")  # less padding
    parts = []
    with torch.inference_mode():
        for batch in np.array_split(by_length, -(-len(by_length) // BATCH)):
            inputs, _ = encoded.batch(batch)
            states = torch.stack(network(**inputs, output_hidden_states=True).hidden_states, dim=1)
            mask = inputs["attention_mask"][:, None, :, None]
            parts.append(((states * mask).sum(2) / mask.sum(2)).numpy())
    return np.concatenate(parts)[np.argsort(by_length)]


if __name__ == "__main__":
    exit_with_one_line(main)
