import dataclasses
import json

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from electra_accel.batch import RTDBatch
from electra_accel.model.rtd import RTDOutput
from electra_accel.tracking.samples import Piece, Reconstruction, join, reconstruct

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "알", "##파", "##벳", "##을", "읽고", "쓰는", "##카", "법"]


def test_pieces_join_into_running_text():
    tokens = ["알", "##파", "##벳", "##을", "읽고", "##", "a", "#"]
    assert join(dataclasses.replace(korean(), original=tokens).original_pieces()) == "알파벳을 읽고 ## a #"


def korean() -> Reconstruction:
    return Reconstruction(
        original=["알", "##파", "##벳", "##을", "읽고", "쓰는", "법"],
        shown=["알", "[MASK]", "[MASK]", "[MASK]", "읽고", "쓰는", "법"],
        generated=["알", "##카", "##벳", "##을", "쓰는", "쓰는", "법"],
        best=["", "##파", "##카", "##을", "읽고", "", ""],
        selected=[False, True, True, True, True, False, False],
        masked=[False, True, True, True, False, False, False],
        probability=[0.1, 0.9, 0.2, 0.2, 0.4, 0.8, 0.1],
    )


def test_texts_read_as_sentences_and_tell_right_from_wrong_calls():
    sample = korean()
    assert join(sample.original_pieces()) == "알파벳을 읽고 쓰는 법"
    assert join(sample.input_pieces()) == "알[MASK][MASK][MASK] (읽고) 쓰는 법"
    assert join(sample.output_pieces()) == "알[카]+[벳]=[을]= (쓰는)- 쓰는! 법"
    assert sample.verdicts() == "1 caught, 1 missed, 1 false alarms"
    assert [piece.verdict for piece in sample.input_pieces()] == ["", "masked", "masked", "masked", "", "", ""]
    assert sample.output_pieces()[2] == Piece("[벳]=", True, "restored", 0.2, "##카")


def test_a_record_brings_back_the_reconstruction():
    sample = dataclasses.replace(korean(), example=7, fixed=False)
    record = json.loads(json.dumps(sample.record(3, 0.5)))
    assert (record["masked"], record["best"]) == ([1, 2, 3], ["##파", "##카", "##을", "읽고"])
    assert Reconstruction.from_record(record) == sample


def corrected() -> Reconstruction:
    return dataclasses.replace(korean(), corrected=["", "##파", "##카", "##을", "법", "", ""])


def test_a_corrected_sentence_shows_what_the_discriminator_would_put_there():
    sample = corrected()
    assert join(sample.corrected_pieces()) == "알[파]=[카][을]= [법] 쓰는 법"
    assert sample.verdicts() == "1 caught, 1 missed, 1 false alarms, 2 of 4 originals named"
    assert [piece.correction for piece in sample.output_pieces()] == sample.corrected
    record = json.loads(json.dumps(sample.record(3, 0.5)))
    assert record["corrected"] == ["##파", "##카", "##을", "법"]
    assert Reconstruction.from_record(record) == dataclasses.replace(sample, fixed=True)
    unselected = dataclasses.replace(
        sample, selected=[False] * 7, masked=[False] * 7, best=[""] * 7, corrected=[""] * 7
    )
    assert Reconstruction.from_record(unselected.record(3, 0.5)) == unselected, "it was asked about nothing"


def test_without_a_corrective_head_nothing_is_said_of_it():
    sample = korean()
    assert sample.corrected_pieces() == [] and "corrected" not in sample.record(3, 0.5)
    assert not any(piece.correction for piece in sample.output_pieces())


def test_a_random_token_in_the_input_is_shown_and_marked():
    """What the generator read, not what stood there: a piece of a word may become a whole word and the other way round."""
    sample = dataclasses.replace(korean(), shown=["알", "[MASK]", "법", "[MASK]", "##파", "쓰는", "법"])
    sample = dataclasses.replace(sample, masked=[False, True, False, True, False, False, False])
    assert join(sample.input_pieces()) == "알[MASK] (법)~[MASK](파)~ 쓰는 법"
    assert join(sample.output_pieces()) == "알[카]+(벳)=[을]= (쓰는)- 쓰는! 법"
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
    answers = torch.tensor([[10, 11, 9]]), torch.tensor([[12, 6, 9]]), logits
    output = RTDOutput(None, None, None, *answers, None, None)
    first, second = reconstruct(batch, output, tokenizer, wanted=range(5))
    assert (join(first.input_pieces()), join(first.output_pieces())) == ("읽고 (법)~", "읽고 (쓰는)=")
    assert (join(second.input_pieces()), join(second.output_pieces())) == ("알[MASK]", "알[카]+")
    assert (first.best, second.best, first.example, second.example) == (["", "법"], ["", "##파"], 7, 8)
    assert reconstruct(batch, output, tokenizer, wanted=[1]) == [second]
    assert first.corrected == [] == second.corrected
    output = RTDOutput(None, None, None, *answers, None, torch.tensor([[11, 7, 9]]))
    assert [each.corrected for each in reconstruct(batch, output, tokenizer, wanted=[0, 1])] == [
        ["", "##카"],
        ["", "##벳"],
    ]
