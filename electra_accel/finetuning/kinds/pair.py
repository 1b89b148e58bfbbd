"""One label a pair of texts."""

from electra_accel.finetuning.kinds.classification import Classification


class Pair(Classification):
    name = "pair"
    learns = "one label a pair of texts"
    text_columns = ("sentence1", "sentence2")
    takes = (2,)
