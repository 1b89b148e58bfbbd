"""Corpus -> a folder of tokens that training reads: made once, cached by content and settings, safe to call from every process.

<root>/<name>-<digest>/
  manifest.json        what is in it, where it comes from, what was skipped; fingerprints
  tokenizer/           a Hugging Face tokenizer folder
  train/               tokens.bin offsets.bin blocks.bin (store.py)
  held_out/, …         the same, one folder a held-out set; replay/ if there is any
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import compress, islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from electra_accel.data.manifest import FORMAT, SplitWriter, nothing_in, read_manifest, unknown_tokens, write_manifest
from electra_accel.data.split import assign, fraction_that_holds_one, numbers
from electra_accel.data.store import MAX_EXAMPLE_TOKENS, TokenStore
from electra_accel.data.waiting import build_once
from electra_accel.digests import Damaged, digests, require_whole
from electra_accel.errors import UserError
from electra_accel.names import short_name
from electra_accel.text.corpus import Corpus, content_key, read_documents, text_bytes, versions
from electra_accel.text.encode import encode_all
from electra_accel.text.tokenizer import fingerprint, load_tokenizer, save_tokenizer, train_tokenizer
from electra_accel.text.unknown import told
from electra_accel.text.vocabulary import adapt

_VOCABULARY_TEXT = 256 << 20  # bytes of text that a vocabulary is trained on; of more, evenly spread batches are taken
_PARALLEL_TEXT = 32 << 20  # bytes; for less, starting processes takes longer than it saves


def prepare(
    root: Path,
    train: Corpus,
    held_out: Mapping[str, Corpus],
    *,
    tokenizer: PreTrainedTokenizerFast | None,
    train_vocab_size: int | None,
    replay: Corpus | None = None,
    add_tokens: tuple[str, ...] = (),
    learn_tokens: int | None = None,
    max_length: int,
    eval_fraction: float,
    join_lines: bool,
    processes: int | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Prepares a corpus, or finds it prepared, and returns its folder for :class:`Prepared`.

    Any number of processes may call this at once (see waiting.py).

    Args:
        root: folder of prepared corpora.
        held_out: name -> corpus of each held-out set; texts that are also in train are left out of them. If none is named
            ``held_out``, that one is split off train by a hash of the text (the built-in corpus: by source file).
        tokenizer: a loaded one. None: a WordPiece vocabulary of ``train_vocab_size`` is trained on train.
        replay: more text to train on; texts that are held out are left out of it.
        add_tokens, learn_tokens: more tokens for the given tokenizer; see :func:`~electra_accel.text.vocabulary.adapt`.
        max_length: tokens per example, [CLS] and [SEP] included.
        eval_fraction: share of train's documents that is split off; at least one document is, unless it is 0.
        join_lines: see :class:`~electra_accel.text.encode.Encoder` and :func:`~electra_accel.text.readers.placed_texts`.
        processes: how many tokenise, which changes no result. None: one a core, at most 16; one for a small corpus or on
            fewer than 4 cores (there, the library's threads do as well).

    Raises:
        UserError: text or tokenizer cannot be used; a file changes meanwhile; too little space on the disk.
    """
    if not 8 <= max_length <= MAX_EXAMPLE_TOKENS:
        raise UserError(f"data.max_length must lie between 8 and {MAX_EXAMPLE_TOKENS}, not {max_length}")
    if not 0 <= eval_fraction < 1:
        raise UserError(f"data.eval_fraction must lie in [0, 1), not {eval_fraction}")
    given = [train, *held_out.values(), *filter(None, [replay])]
    at_first = {path: version for corpus in given for path, version in versions(corpus).items()}
    settings = {
        "format": FORMAT,
        "train": [content_key(train), train.text_column],
        "held_out": {name: [content_key(corpus), corpus.text_column] for name, corpus in held_out.items()},
        "tokenizer": fingerprint(tokenizer) if tokenizer else f"WordPiece {train_vocab_size}",
        "max_length": max_length,
        "eval_fraction": 0 if "held_out" in held_out else eval_fraction,
        "join_lines": join_lines,
    }
    if replay:
        settings["replay"] = [content_key(replay), replay.text_column]
    if add_tokens or learn_tokens:
        if tokenizer is None:
            raise UserError("tokenizer.add_tokens and tokenizer.learn_tokens extend a given vocabulary; leave them out")
        settings |= {"add_tokens": add_tokens, "learn_tokens": learn_tokens}
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    first = re.sub(r"[^\w-]+", "_", Path(train.dataset or train.files[0]).name.split(".")[0]).strip("_") or "corpus"
    folder = root / f"{short_name(first)}-{digest}"

    def build(temporary: Path) -> None:
        # A token takes 2 bytes (4 if the vocabulary is over 65,536) and stands for 4 to 6 bytes of text in English and Korean.
        need = sum(map(text_bytes, given)) // 2
        if need > (free := shutil.disk_usage(root).free):
            amounts = f"needs about {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on that disk"
            raise UserError(f"{root}: the prepared corpus {amounts}")
        log(f"preparing {first} in {folder}")
        try:
            _build(temporary, train, held_out, replay, tokenizer, train_vocab_size, settings, processes, log)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            full = "the disk became full while the corpus was prepared; free space or use another"
            raise UserError(f"{root}: {full}") from None
        now = {path: version for corpus in given for path, version in versions(corpus).items()}
        # It is read several times, but stored under the digest of what it was at the start.
        if changed := [path for path in at_first | now if at_first.get(path) != now.get(path)]:
            raise UserError(f"{changed[0]} was changed while the corpus was prepared; start again when it is at rest")

    if folder.exists():
        log(f"found prepared data {folder}")
        if known := read_manifest(folder).get("vocabulary"):
            before, after = known["tokens_before"], known["tokens_after"]
            log(f"vocabulary: {known['added']} tokens added, {after:,} tokens of training text instead of {before:,}")
    build_once(folder, build, log)
    for line in told(unknown_tokens(read_manifest(folder))):
        log(line)
    return folder


def _build(
    folder: Path,
    train: Corpus,
    held_out: Mapping[str, Corpus],
    replay: Corpus | None,
    tokenizer: PreTrainedTokenizerFast | None,
    vocab_size: int | None,
    settings: dict,
    processes: int | None,
    log: Callable[[str], None],
) -> None:
    join_lines, max_length = settings["join_lines"], settings["max_length"]
    fraction = fraction_that_holds_one(train, settings["eval_fraction"], join_lines, log)
    stride = 1 + text_bytes(train) // _VOCABULARY_TEXT

    def texts() -> Iterator[list[str]]:
        for batch in islice(read_documents(train, join_lines), 0, None, stride):
            yield list(compress(batch.documents, numbers(train, batch) >= fraction))  # nothing that is held out

    vocabulary = None
    if tokenizer is None:
        log(f"training a vocabulary of {vocab_size} tokens")
        if not any(text.strip() for batch in texts() for text in batch):
            raise UserError(f"no usable text to train on in {train.dataset or ' '.join(train.files)}; name other files")
        tokenizer = train_tokenizer(texts, vocab_size, folder / "tokenizer", log=log)
        if len(tokenizer) < vocab_size:
            log(f"the vocabulary has only {len(tokenizer):,} tokens: the text is too small for more")
    elif "add_tokens" in settings:
        tokenizer, vocabulary = adapt(tokenizer, settings["add_tokens"], settings["learn_tokens"], texts(), log)
    save_tokenizer(tokenizer, folder / "tokenizer")
    names = ["train", *["held_out"] * (fraction > 0), *held_out, *["replay"] * bool(replay)]
    splits = {name: SplitWriter(folder / name, len(tokenizer), max_length) for name in names}
    cores = len(os.sched_getaffinity(0))
    processes = processes or (1 if text_bytes(train) < _PARALLEL_TEXT or cores < 4 else min(16, cores))
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    jobs = assign(train, held_out, replay, fraction, join_lines, left_out)
    special_ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id)
    backend = tokenizer.backend_tokenizer.to_str()
    for (name, source), examples in encode_all(jobs, processes, backend, special_ids, max_length, join_lines):
        splits[name].add(source, examples)
    for name, reasons in left_out.items():
        splits[name].skipped += reasons
    closed = {name: split.close(tokenizer) for name, split in splits.items()}
    for name, split in closed.items():
        if not split["examples"]:
            raise UserError(nothing_in(name, split))
    prints = [fingerprint(tokenizer), *(split["fingerprint"] for split in closed.values())]
    manifest = {
        "format": FORMAT,
        "fingerprint": hashlib.blake2b(" ".join(prints).encode(), digest_size=16).hexdigest(),
        "tokenizer": prints[0],
        "vocab_size": len(tokenizer),
        "vocabulary": vocabulary,  # None, or what vocabulary.adapt made of the given one
        "settings": settings,
        "splits": closed,
        "files": digests(folder),
    }
    write_manifest(folder, manifest)


class Prepared:
    """A prepared folder, opened with the tokenizer that the run uses, or else with the one in it.

    Raises:
        UserError: not a prepared folder, another format, damaged, or made with another tokenizer.
    """

    def __init__(self, folder: str | Path, tokenizer: PreTrainedTokenizerFast | None = None):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.fingerprint: str = self.manifest["fingerprint"]  # of all tokens and the tokenizer: equal on two hosts
        if os.environ.get("LOCAL_RANK", "0") == "0":  # once a host: it reads all bytes
            _require_whole(self.folder, self.manifest.get("files", {}))  # none where an earlier version prepared it
        self.tokenizer = tokenizer or load_tokenizer(self.folder / "tokenizer")
        if fingerprint(self.tokenizer) != self.manifest["tokenizer"]:
            why = "its tokenizer is not the one that the text was prepared with: changed since, or by an earlier version that "
            why += "took Hangul syllables apart; prepare again"
            if tokenizer:
                why = f"prepared with another tokenizer than {tokenizer.name_or_path}; prepare again with this one, or use "
                why += "the tokenizer in the folder"
            raise UserError(f"{folder}: {why} (option data.prepared)")
        stores: dict[str, TokenStore] = {}
        for name, split in self.manifest["splits"].items():
            place = self.folder / name
            try:
                store = TokenStore(place, self.manifest["vocab_size"], corpus=int(split["fingerprint"][:16], 16))
            except (OSError, ValueError) as error:
                raise UserError(f"{place}: damaged: {error}; delete {self.folder} and prepare again") from None
            if (len(store), len(store.tokens)) != (split["examples"], split["tokens"]):
                raise UserError(f"{place}: not as long as its manifest says; delete {self.folder} and prepare again")
            stores[name] = store
        self.train: TokenStore = stores.pop("train")
        self.replay: TokenStore | None = stores.pop("replay", None)
        self.held_out: dict[str, TokenStore] = stores  # by name of the set


_whole: set[tuple] = set()  # folders that were read to the end, as they were then


def _require_whole(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Once for a folder that does not change: it reads all bytes."""
    with suppress(OSError, ValueError, TypeError):
        seen = (folder.resolve(), *((name, os.stat(folder / name).st_mtime_ns) for name in sorted(files)))
        if seen in _whole:
            return
    try:
        require_whole(folder, files)
    except Damaged as reason:
        raise UserError(f"{folder}: damaged: {reason}; delete the folder and prepare again") from reason
    _whole.add(seen)
