"""JSON that somebody else wrote, or that a disk has damaged: one line wherever it is read."""

import json

import pytest

from electra_accel import json_text
from electra_accel.data.manifest import MANIFEST, read_manifest
from electra_accel.data.prepare import prepare
from electra_accel.errors import UserError
from electra_accel.model.fingerprint import fingerprint
from electra_accel.pretraining import assemble
from electra_accel.pretraining.saved_pairs import text_of_run
from electra_accel.runs import checkpoint, run_folder
from electra_accel.text.corpus import Corpus
from tests.text.texts import TEXTS

TOO_MUCH = {
    "digits": "9" * 4301,
    "lists": "[" * 200_000 + "]" * 200_000,
    "names": '{"a":' * 200_000 + "1" + "}" * 200_000,
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_what_python_does_not_read_is_a_value_error_of_one_short_line(kind):
    for text in (TOO_MUCH[kind], TOO_MUCH[kind].encode()):
        with pytest.raises(ValueError, match="nested too deeply|4,300 digits") as caught:
            json_text.loads(text)
        assert len(str(caught.value)) < 80


def test_everything_else_is_as_json_reads_it():
    text = '{"a": [1, NaN, -Infinity, "\\ud800", ' + "9" * 4300 + "]}"
    assert repr(json_text.loads(text)) == repr(json.loads(text))
    with pytest.raises(json.JSONDecodeError):
        json_text.loads('{"a": ')
    with pytest.raises(UnicodeDecodeError):
        json_text.loads(b'"\xff"')


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_every_reader_of_json_names_the_file(tmp_path, kind):
    text = f'{{"format": 1, "step": 3, "files": {{}}, "more": {TOO_MUCH[kind]}}}'
    (tmp_path / run_folder.STATUS).write_text(text)
    with pytest.raises(UserError, match="status.json is damaged"):
        run_folder.read_status(tmp_path)
    (tmp_path / run_folder.METRICS).write_text(f'{{"step": 1}}\n{text}\n')
    with pytest.raises(UserError, match="metrics.jsonl .*line 2 "):
        run_folder.read_jsonl(tmp_path / run_folder.METRICS)
    (tmp_path / checkpoint.MANIFEST).write_text(text)
    with pytest.raises(checkpoint.Damaged, match="manifest.json"):
        checkpoint.verify(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="damaged: manifest.json"):
        read_manifest(tmp_path)
    for name, content in (("config.json", "{}"), ("vocab.txt", "a"), ("tokenizer_config.json", text)):
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="tokenizer_config.json: not readable json"):
        fingerprint(tmp_path)


@pytest.mark.parametrize(
    "damaged", [*TOO_MUCH.values(), "[]", "{}", '{"splits": []}', '{"splits": 1, "tokenizer": "x"}', "\0"]
)
def test_a_damaged_folder_among_the_prepared_ones_is_no_concern_of_another_text(tmp_path, monkeypatch, damaged):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    how = dict(tokenizer=None, train_vocab_size=300, max_length=64, eval_fraction=0.1, join_lines=False)
    folder = prepare(
        tmp_path / "prepared", Corpus(files=(str(tmp_path / "text.txt"),)), {}, **how, log=lambda line: None
    )
    monkeypatch.setattr(assemble, "PREPARED", tmp_path / "prepared")
    (tmp_path / "prepared" / "a").mkdir()
    (tmp_path / "prepared" / "a" / MANIFEST).write_text(damaged)
    known = read_manifest(folder)
    (tmp_path / "run" / "held_out").mkdir(parents=True)
    identity = {"data": known["splits"]["held_out"]["fingerprint"], "tokenizer": known["tokenizer"]}
    run_folder.write_json(tmp_path / "run" / "held_out" / run_folder.HELD_OUT_IDENTITY, identity)
    assert text_of_run(tmp_path / "run", None, lambda line: None).folder == folder
