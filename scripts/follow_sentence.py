"""Follow one sentence from text to loss: every value on the way, by the functions that training uses.

    python scripts/follow_sentence.py                     # a built-in sentence and a fresh tiny pair: no files, no network
    python scripts/follow_sentence.py --run runs/my-text "The chef ate the meal." "Another text for the same row."
    python scripts/follow_sentence.py --generator pair/generator --discriminator pair/discriminator "The chef ate the meal."

The first text is followed, of a long one its first piece; the others are packed into rows with it. Each heading names the files
in electra_accel/ that do what stands below it. docs/tutorial.md (docs/tutorial.ko.md) explains the output.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.terminal import quiet_libraries

SENTENCE = "The cook in the cafe\u0301 tasted the soup, salted it and tasted it again."
OTHERS = [
    "The guests in the café liked the taste of it, again and again.",
    "요리사가 수프를 맛보고 소금을 넣었습니다.",
    "A cook adds salt to the soup, little by little.",
]
SEED, MAX_LENGTH, MASK_PROB = 237, 48, 0.15  # of the fresh pair; with this seed the sentence shows every case


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="the text to follow, and others [built-in ones]")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a run: its pair, objective and rows")
    parser.add_argument("--generator", metavar="PATH", help="instead of --run: folder or hub id")
    parser.add_argument("--discriminator", metavar="PATH", help="the same")
    parser.add_argument("--seed", type=int, metavar="N", help="other masks and replacements [run.seed of the run]")
    asked = parser.parse_intermixed_args(arguments)
    if bool(asked.generator) != bool(asked.discriminator) or (asked.run and asked.generator):
        parser.error("give --run, or --generator and --discriminator, or none of the three")
    for text in asked.texts:
        if not text.strip() or text.encode(errors="ignore").decode() != text:
            parser.error(f"the text {text!r} is empty or not UTF-8")
    return asked


def pair_of(asked: argparse.Namespace, folder: Path):
    """The pair, its tokenizer and configuration. A fresh one has random weights, and a vocabulary of these few texts."""
    from electra_accel.model.pair import build_pair
    from electra_accel.pretraining.config import Config, resolve
    from electra_accel.pretraining.saved_pairs import SavedPair, given_pair, run_pair
    from electra_accel.text.tokenizer import train_tokenizer

    config = Config()
    if asked.run:
        return run_pair(asked.run)
    if asked.generator:
        return given_pair(asked.generator, asked.discriminator, config.data.max_length)
    config.data.max_length, config.run.seed = MAX_LENGTH, SEED
    objective = config.objective  # the weights as published
    objective.mask_prob, objective.discriminator_weight, objective.corrective_weight = MASK_PROB, 50.0, 0.0
    tokenizer = train_tokenizer(lambda: [OTHERS + asked.texts], 400, folder / "tokenizer")
    shape = dict(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, max_length=MAX_LENGTH)
    pair = build_pair("tiny", **shape, generator_width=0.5, dropout=0.0, seed=1)
    return SavedPair(pair, tokenizer, resolve(config), "a fresh tiny pair")


def row_of(saved, texts: list[str], folder: Path):
    """How many pieces the first text is cut into; collator and bin of the row that holds the first one, in the first pass."""
    from electra_accel.data.prepare import Prepared, prepare
    from electra_accel.pretraining.assemble import step_loader
    from electra_accel.text.corpus import Corpus
    from electra_accel.text.encode import Encoder

    config, tokenizer, file = saved.config, saved.tokenizer, folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    how = dict(tokenizer=tokenizer, train_vocab_size=None, max_length=config.data.max_length, eval_fraction=0.0)
    how |= dict(join_lines=False, log=lambda line: None)
    special_ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id)
    encoder = Encoder(tokenizer.backend_tokenizer.to_str(), special_ids, config.data.max_length, join_lines=False)
    for number, text in enumerate(texts, 1):
        if not encoder([text]).documents:
            raise UserError(f"text {number}, {text!r}, has no token that this vocabulary knows; leave it out")
    prepared = Prepared(prepare(folder, Corpus(files=(str(file),)), {}, **how), tokenizer)
    config.train.batch_tokens = config.train.bin_tokens  # a global step of one row
    loader = step_loader(config, prepared, held_out=False, world_size=1, rank=0, device="cpu")
    loader.plan.passes = 1  # not one pass after another without end
    pieces = len(encoder(texts[:1]).lengths)
    return pieces, loader.collator, next(step.bins for step in loader.plan.steps() if 0 in step.bins.examples)


def main() -> None:
    asked = parse(sys.argv[1:])
    quiet_libraries()

    # Imported only now, so that --help and mistakes are answered at once.
    import numpy as np
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from electra_accel.data.masking import example_streams, selected_count
    from electra_accel.model.rtd import encoder_inputs, predict_slots
    from electra_accel.randomness import Purpose, uniform
    from electra_accel.text.unknown import measure, told
    from electra_accel.text.writing import normalise

    texts = asked.texts or [SENTENCE, *OTHERS]
    with TemporaryDirectory() as name:
        saved = pair_of(asked, Path(name))
        pair, config, objective = saved.pair, saved.config, saved.config.objective
        config.run.seed = config.run.seed if asked.seed is None else asked.seed
        pieces, collator, bins = row_of(saved, texts, Path(name))
    batch = collator.collate(bins)
    number = bins.examples.tolist().index(0)  # of the sentence among the examples of the row
    parts = [(batch.segment_ids[0] == n).nonzero().flatten() for n in [*range(1, len(bins.examples) + 1), 0]]
    columns = parts[number]
    ids, positions = batch.input_ids[0, columns], (batch.slot_positions[0] - columns[0]).tolist()
    slots = [s for s, i in enumerate(positions) if batch.slot_used[0, s] and 0 <= i < len(ids)]
    selected = [positions[s] for s in slots]

    module = saved.module().eval()
    inputs = encoder_inputs(batch, pair.generator.generator_lm_head.weight, attention_boundaries=True)
    with torch.inference_mode():
        slot_loss, log_probs = predict_slots(pair.generator, batch, inputs)
        output = module(batch)

    def tokens(ids: torch.Tensor) -> list[str]:
        return saved.tokenizer.convert_ids_to_tokens(ids.tolist())

    original, read = tokens(ids), tokens(batch.corrupted_ids[0, columns])
    print(f"{saved.weights}, a vocabulary of {len(saved.tokenizer)} tokens, seed {config.run.seed}")
    print("\n1 text, tokens, ids (text/encode.py)")
    print(f"  {texts[0]}  ({len(texts[0])} characters)")
    print(f"  {normalise(texts[0])}  (normalised: {len(normalise(texts[0]))} characters)")
    if pieces > 1:
        print(f"  longer than data.max_length {config.data.max_length}: the first of its {pieces} pieces is followed")
    print(f"  {' '.join(original)}\n  {' '.join(map(str, ids.tolist()))}")
    if (unknown := measure([ids.tolist()], saved.tokenizer, texts)).unknown:
        for line in told({"the text": unknown}):
            print(f"  {line}")

    print("\n2 what is selected, and what the generator reads there (data/masking.py)")
    n, share, limit = len(ids) - 2, objective.mask_prob, objective.mask_token_prob
    print(f"  {selected_count(n, share)} of {n} candidates ({share:.0%}): {collator.masking.rule.order}")
    key = config.run.seed, collator.store.corpus, bins.passes[number : number + 1], np.zeros(1, np.int64)
    streams = [example_streams(*key, purpose) for purpose in (Purpose.SELECT, Purpose.CORRUPT)]
    first, second = (uniform(stream, np.arange(len(ids))) for stream in streams)
    for i in range(1, len(ids) - 1):
        note = f"  selected; second number {second[i]:.4f} (below {limit}: [MASK]): reads {read[i]}"
        print(f"  {i:2}  {first[i]:.4f}  {original[i]}{note if i in selected else ''}")

    print("\n3 the row (data/plan.py, data/collate.py, model/attention.py)")
    in_row, real = map(int, batch.counts())
    print(f"  {batch.real.numel()} slots, {real} real tokens, {in_row} selected")
    for part in filter(len, parts):
        seen, at = (inputs["packing"].mask[0, 0, part[0]] == 0).nonzero().flatten(), batch.position_ids[0, part]
        text = " ".join(tokens(batch.corrupted_ids[0, part])) if batch.real[0, part[0]] else "padding"
        print(f"  columns {part[0]}-{part[-1]} see {seen[0]}-{seen[-1]}; positions {at[0]}-{at[-1]}: {text}")

    print("\n4 the generator fills in (model/rtd.py)")
    for s, i in zip(slots, selected):
        p, drawn = (log_probs[0, s] / objective.temperature).softmax(-1).double(), output.sampled[0, s]
        best, end = p.topk(4), p[: drawn + 1].sum()
        guesses = ", ".join(f"{token} {p:.4f}" for token, p in zip(tokens(best.indices), best.values))
        print(f"  position {i}, where it reads {read[i]}: {guesses}, …; all tokens {p.sum():.4f}")
        print(f"    {original[i]} {p[ids[i]]:.4f}, so the loss is {slot_loss[0, s]:.4f}")
        part = f"{end - p[drawn]:.4f} to {end:.4f}: {tokens(drawn[None])[0]}"
        print(f"    number {batch.slot_uniform[0, s]:.4f} lies in {part}")

    print("\n5 the discriminator judges every token (model/rtd.py)")
    shown = ids.scatter(0, torch.tensor(selected), output.sampled[0, slots])
    logits, target = output.discriminator_logits[0, columns], (shown != ids).float()
    losses = binary_cross_entropy_with_logits(logits, target, reduction="none")
    for i, token in enumerate(tokens(shown)):
        print(f"  {i:2}  target {target[i]:.0f}, says {logits[i].sigmoid():.4f}, loss {losses[i]:.4f}  {token}")
    if output.corrected is not None:
        print("  and names what should stand at the selected ones (model/corrective.py)")
        for i, token in zip(selected, tokens(output.corrected[0, slots])):
            print(f"  {i:2}  originally {original[i]}, says {token}")

    print("\n6 the loss (pretraining/loop.py)")
    (weight_g, weight_d), (g, d) = (objective.generator_weight, objective.discriminator_weight), output[:2]
    print(f"  the sentence: generator {slot_loss[0, slots].sum():.4f}, discriminator {losses.sum():.4f}")
    print(f"  the row: generator {g:.4f} / {in_row} = {(g := g / in_row):.4f}", end=", ")
    print(f"discriminator {d:.4f} / {real} = {(d := d / real):.4f}")
    terms, loss = f"{weight_g:g} x {g:.4f} + {weight_d:g} x {d:.4f}", weight_g * g + weight_d * d
    if output.corrected is not None:
        weight_c, c = objective.corrective_weight, output.corrective_loss_sum
        print(f"  and to name the original tokens {c:.4f} / {in_row} = {(c := c / in_row):.4f}")
        terms, loss = f"{terms} + {weight_c:g} x {c:.4f}", loss + weight_c * c
    print(f"  loss: {terms} = {loss:.4f}")


if __name__ == "__main__":
    exit_with_one_line(main)
