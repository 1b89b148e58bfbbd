import dataclasses

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from electra_accel.batch import RTDBatch
from electra_accel.tracking.samples import Reconstruction, join_pieces, reconstruct

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "알", "##파", "##벳", "##을", "읽고", "쓰는", "##카", "법"]


def test_pieces_join_into_running_text():
    assert join_pieces(["알", "##파", "##벳", "##을", "읽고"]) == "알파벳을 읽고"
    assert join_pieces(["##", "a", "#"]) == "## a #"


def korean() -> Reconstruction:
    return Reconstruction(
        original=["알", "##파", "##벳", "##을", "읽고", "쓰는", "법"],
        shown=["알", "[MASK]", "[MASK]", "[MASK]", "읽고", "쓰는", "법"],
        generated=["알", "##카", "##벳", "##을", "쓰는", "쓰는", "법"],
        selected=[False, True, True, True, True, False, False],
        masked=[False, True, True, True, False, False, False],
        probability=[0.1, 0.9, 0.2, 0.2, 0.4, 0.8, 0.1],
    )


def test_texts_read_as_sentences_and_tell_right_from_wrong_calls():
    sample = korean()
    assert sample.original_text() == "알파벳을 읽고 쓰는 법"
    assert sample.input_text() == "알[MASK][MASK][MASK] (읽고) 쓰는 법"
    assert sample.output_text() == "알[카]+[벳]=[을]= (쓰는)- 쓰는! 법"
    assert sample.record(3, 0.5)["masked"] == [1, 2, 3]


def test_a_random_token_in_the_input_is_shown_and_marked():
    """What the generator read, not what stood there: a piece of a word may become a whole word and the other way round."""
    sample = dataclasses.replace(korean(), shown=["알", "[MASK]", "법", "[MASK]", "##파", "쓰는", "법"])
    sample = dataclasses.replace(sample, masked=[False, True, False, True, False, False, False])
    assert sample.input_text() == "알[MASK] (법)~[MASK](파)~ 쓰는 법"
    assert sample.output_text() == "알[카]+(벳)=[을]= (쓰는)- 쓰는! 법"
    assert sample.record(3, 0.5)["shown"][2] == "법"


def test_reconstruction_follows_the_batch_across_segments():
    """Two examples in one row, the second with one masked piece; unused slots must not disturb position 0."""
    inner = Tokenizer(models.WordPiece({token: i for i, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]", pad_token="[PAD]")
    ids = torch.tensor([[2, 9, 10, 3, 2, 5, 6, 3, 0, 0]])
    corrupted = ids.clone()
    corrupted[0, 2], corrupted[0, 6] = 12, 4  # a random token, and [MASK]
    batch = RTDBatch(
        input_ids=ids,
        corrupted_ids=corrupted,
        position_ids=torch.zeros_like(ids),
        token_type_ids=torch.zeros_like(ids),
        segment_ids=torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]]),
        slot_positions=torch.tensor([[2, 6, 0]]),
        slot_used=torch.tensor([[True, True, False]]),
        slot_uniform=torch.zeros(1, 3, dtype=torch.float64),
        examples=torch.tensor([[7, 8]]),
    )
    logits = torch.full((1, 10), -5.0)
    logits[0, 6] = 5.0
    first, second = reconstruct(batch, torch.tensor([[10, 11, 9]]), logits, tokenizer, limit=5)
    assert (first.input_text(), first.output_text()) == ("읽고 (법)~", "읽고 (쓰는)=")
    assert (second.input_text(), second.output_text()) == ("알[MASK]", "알[카]+")
    assert reconstruct(batch, torch.tensor([[10, 11, 9]]), logits, tokenizer, limit=1) == [first]
