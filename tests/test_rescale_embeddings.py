"""scripts/benchmarks/rescale_embeddings.py: smaller tables, the same outputs."""

import torch
from transformers import AutoModel, AutoTokenizer

from tests.finetuning.small import make_encoder
from tests.pretraining_runs import run_here

SCRIPT = "benchmarks/rescale_embeddings.py"


def test_the_function_stays_and_the_tables_shrink(tmp_path, monkeypatch, capfd):
    given = AutoModel.from_pretrained(make_encoder(tmp_path / "given"))
    with torch.no_grad():
        for table in given.embeddings.children():
            if isinstance(table, torch.nn.Embedding):
                table.weight.mul_(3.0)
        given.embeddings.token_type_embeddings.weight.add_(0.05)  # so that a table left out would show
    given.save_pretrained(tmp_path / "given")
    code, out, err = run_here(["given", "--to", "smaller"], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 0, err
    smaller = AutoModel.from_pretrained(tmp_path / "smaller").eval()
    assert abs(smaller.embeddings.word_embeddings.weight.std() - 0.02) < 1e-5
    inputs = AutoTokenizer.from_pretrained(tmp_path / "smaller")(
        ["w1 bad", "good w12 w3"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected, found = given.eval()(**inputs).last_hidden_state, smaller(**inputs).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert smaller.config.hidden_dropout_prob == given.config.hidden_dropout_prob == 0.1

    code, _, err = run_here(["given", "--to", "smaller"], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "not an empty folder" in err
    code, _, err = run_here(["given", "--to", "x", "--deviation", "0"], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "--deviation" in err
    code, _, err = run_here(["nowhere", "--to", "x"], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "nowhere" in err and not (tmp_path / "x").exists()
