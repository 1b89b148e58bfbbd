"""Prepared folders whose files were damaged."""

import pytest

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.errors import UserError
from electra_accel.text.corpus import Corpus
from tests.text.texts import TEXTS


def test_damage_to_any_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    how = dict(train_vocab_size=300, max_length=32, eval_fraction=0.1, join_lines=False, processes=1)
    corpus = Corpus(files=(str(tmp_path / "text.txt"),))
    folder = prepare(tmp_path, corpus, {}, tokenizer=None, log=lambda line: None, **how)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"tokens.bin", "offsets.bin", "blocks.bin", "manifest.json", "tokenizer.json"} <= {
        path.name for path in files
    }
    for path in files:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        for damaged in (bytes(flipped), content[: len(content) // 2], b"", None):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(UserError) as caught:
                Prepared(folder)
            assert path.name in str(caught.value) and str(folder) in str(caught.value), path
            path.write_bytes(content)
    assert Prepared(folder)
    # The first process of each host reads it all; the others would only read the same.
    (folder / "train" / "tokens.bin").write_bytes(bytes((folder / "train" / "tokens.bin").stat().st_size))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Prepared(folder)
