"""One tag a word: names of entities, or parts of speech. The tag of a word is learnt and predicted at its first token."""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, Self

import numpy as np

from electra_accel.errors import UserError
from electra_accel.finetuning.kinds.kind import IGNORED, Kind, Row, label_in, text_in
from electra_accel.text.columns import TAGS, WORDS

OUTSIDE = "O"  # tag of words that nothing is known of
ENTITY_TAG = re.compile("O|[BIESLU]-.+")  # IOB, IOBES and BILOU


class Tagging(Kind):
    name = "tagging"
    learns = "one tag a word"
    metrics = ("entity_f1", "entity_precision", "entity_recall", "accuracy")
    text_columns = ("tokens",)
    label_column = "tags"
    cells = (WORDS, TAGS)
    words = True
    head = "ForTokenClassification"
    pipeline = "token-classification"
    use = """\
words = ["a", "text", "in", "words"]
inputs = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    best = model(**inputs).logits[0].argmax(-1).tolist()
word_of = inputs.word_ids()  # the tag of a word is that of its first token
first = [i for i, word in enumerate(word_of) if word is not None and word != word_of[i - 1]]
print([(words[word_of[i]], model.config.id2label[best[i]]) for i in first])
"""

    @classmethod
    def row(cls, cells: Sequence[Any], metric: str) -> Row:
        words, tags = cells
        if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
            raise UserError("the columns task.text_columns and task.label_column must hold lists of one length")
        if not words:
            raise UserError("no words (option task.text_columns)")
        tags = tuple(map(label_in, tags))
        if "" in tags:
            raise UserError(f"no tag for word {tags.index('') + 1} (option task.label_column)")
        if metric != "accuracy" and (wrong := [tag for tag in tags if not ENTITY_TAG.fullmatch(tag)]):
            raise UserError(
                f"the tag {wrong[0][:40]!r} is neither O nor B-TYPE or I-TYPE (E-, S-, L-, U-): entities cannot be told: "
                "convert the tags (remove header and comment lines), or give --task.metric accuracy"
            )
        return Row(tuple("" if word is None else text_in(word) for word in words), tags)

    @classmethod
    def learn(cls, splits: dict[str, list[Row]], metric: str) -> Self:
        tags = {tag for rows in splits.values() for row in rows for tag in row.label}  # a rare one may be in dev only
        if len(tags) < 2:
            raise UserError(f"one tag only, {min(tags)!r}: nothing to learn")
        # Parts of speech, which are judged by accuracy, need not have it.
        return cls(tuple(sorted(tags if metric == "accuracy" else tags | {OUTSIDE})))

    def notes(self, splits: dict[str, list[Row]]) -> list[str]:
        found = []
        for name, rows in splits.items():
            pairs = chain.from_iterable(zip(row.texts, row.label, strict=True) for row in rows)
            if unread := sum(tag != OUTSIDE and not word.strip() for word, tag in pairs):
                said = f"are blanks with a tag: no token stands for them, so they count as {OUTSIDE}"
                found.append(f"{unread:,} words of {name} {said}")
        return found

    def targets(self, rows: list[Row], tokens) -> tuple[list[np.ndarray], list[np.ndarray]]:
        targets, words = [], []
        for i, row in enumerate(rows):
            word_ids = np.array([-1 if word is None else word for word in tokens.word_ids(i)])
            first = (word_ids >= 0) & (word_ids != np.concatenate([[-1], word_ids[:-1]]))
            tags = np.array([self.number[tag] for tag in row.label])
            targets.append(np.where(first, tags[word_ids], IGNORED))
            words.append(word_ids[first])
        return targets, words

    def outputs(self, logits, targets) -> list[np.ndarray]:
        """The best tag of each target but IGNORED."""
        best = logits.argmax(-1).masked_fill(logits.isnan().any(-1), -1).cpu().numpy()
        return [row[mask] for row, mask in zip(best, (targets != IGNORED).cpu().numpy(), strict=True)]

    def prediction(self, row: Row, output: np.ndarray, words: np.ndarray) -> dict[str, Any]:
        """A word that has no token, or that was cut off, is predicted as outside."""
        tags = [OUTSIDE] * len(row.label)
        for word, tag in zip(words, output, strict=True):
            tags[word] = self.labels[tag]
        return {"predicted": tags}

    def scores(self, labels: list[tuple[str, ...]], predicted: list[list[str]]) -> dict[str, float]:
        """Of entities, if all tags name some, and of tags."""
        import seqeval.metrics
        from sklearn.metrics import accuracy_score

        found, tags = {}, list(chain(*labels))
        if all(map(ENTITY_TAG.fullmatch, set(tags))):
            both = [[list(map(_as_iobes, each)) for each in rows] for rows in (labels, predicted)]
            found = {
                "entity_f1": seqeval.metrics.f1_score(*both),
                "entity_precision": seqeval.metrics.precision_score(*both),
                "entity_recall": seqeval.metrics.recall_score(*both),
            }
        return found | {"accuracy": accuracy_score(tags, list(chain(*predicted)))}


def _as_iobes(tag: str) -> str:
    """seqeval knows BILOU's tags of a last and of a lone word in its strict modes only, and there refuses the other schemes."""
    return {"L-": "E-", "U-": "S-"}.get(tag[:2], tag[:2]) + tag[2:]
