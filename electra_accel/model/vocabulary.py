"""Rows for new tokens in both networks: each starts as the mean of the rows of the pieces that the token replaces."""

from collections.abc import Iterable, Sequence

import torch
from transformers import ElectraForMaskedLM, ElectraForPreTraining, PreTrainedTokenizerFast

from electra_accel.errors import UserError
from electra_accel.text.tokenizer import vocabulary_conflict
from electra_accel.text.wordpiece import WordPiece


def extend_networks(
    networks: Iterable[ElectraForMaskedLM | ElectraForPreTraining],
    old: PreTrainedTokenizerFast,
    new: PreTrainedTokenizerFast,
) -> None:
    """Gives each network rows for the tokens that ``new`` has beyond ``old``; to be called before embeddings are shared.

    Raises:
        UserError: ``new`` is not ``old`` with more tokens.
    """
    pieces = pieces_of_new_tokens(old, new)
    for network in networks:
        add_rows(network, len(old), pieces)


def pieces_of_new_tokens(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> list[list[int]]:
    """For each token from id len(old) on, the ids that ``old`` cuts it into, "##…" as inside a word; else that of [UNK]."""
    if len(new) < len(old) or vocabulary_conflict(old, new):
        raise UserError(
            "the tokenizer of the prepared data does not extend the pair's vocabulary; prepare the text again (data.prepared)"
        )
    if len(new) == len(old):
        return []
    wordpiece = WordPiece(old)
    tokens = new.convert_ids_to_tokens(list(range(len(old), len(new))))
    return [old.convert_tokens_to_ids(wordpiece.pieces(token) or [old.unk_token]) for token in tokens]


@torch.no_grad()
def add_rows(network: ElectraForMaskedLM | ElectraForPreTraining, first: int, pieces: Sequence[Sequence[int]]) -> None:
    """Sets the rows from ``first`` on, of the word table and an LM head tied to it, each to the mean of the rows ``pieces[…]``.

    Rows that a table has beyond ``first`` (published tables are often padded) are used before it grows; none is taken away.
    ``config.vocab_size`` follows; all other parameters stay as they are.

    Args:
        first: id of the first new token; all ids in ``pieces`` are below it.
    """
    table = network.electra.embeddings.word_embeddings
    network.resize_token_embeddings(max(table.num_embeddings, first + len(pieces)), mean_resizing=False)
    changed = [table.weight]
    if isinstance(network, ElectraForMaskedLM):
        changed.append(network.generator_lm_head.bias)
    for rows in changed:
        for number, ids in enumerate(pieces, start=first):
            rows[number] = rows[list(ids)].mean(0)
