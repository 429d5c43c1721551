"""The tools and benchmarks run, on little, and leave what they promise."""

import json
import re
import shutil
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file
from scripts import PROJECT_ROOT, assert_refused, load_script, run_script

from extractive_qa.documents.index import DocumentIndex
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import make_room
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_MODEL_DIR

TEXT = "Ada Lovelace wrote it in 1843."


@pytest.fixture(scope="module")
def make_sample():
    """dev/make_sample.py as a function of its arguments."""
    script = load_script("dev/make_sample.py")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


def test_the_sample_reader_is_made_in_half_precision_with_a_card(trained, make_sample, tmp_path):
    model, sample = shutil.copytree(trained / "final_model", tmp_path / "model"), tmp_path / "sample"
    metrics = {"exact_match": 59.3, "f1": 70.5, "total": 4961, "settings": {"mixed_precision": "bf16"}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    make_sample("--model_dir", model, "--output_dir", sample, "--metrics", tmp_path / "metrics.json")
    assert all(tensor.dtype == torch.float16 for tensor in load_file(sample / "model.safetensors").values())
    card = (sample / "README.md").read_text(encoding="utf-8")
    assert "EM 59.30, F1 70.50 on 4,961 questions" in card
    settings = (sample / "reader.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in settings + card
    assert "eacher" not in card
    path = model / "reader.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"teacher_dir": []', '"teacher_dir": ["large"]'), "utf-8")
    make_sample("--model_dir", model, "--output_dir", tmp_path / "taught")
    card = (tmp_path / "taught" / "README.md").read_text(encoding="utf-8")
    assert "--seed 42 \\\n    --teacher_dir benchmarks/results/recipes/larger_1.teacher\n```" in card
    assert "- **Teacher**: all-mpnet-base-v2" in card
    assert Reader(sample, "cpu", "no").answer("Who?", TEXT)["text"] in TEXT


def test_what_is_no_model_of_ours_makes_no_sample(tiny_model, tiny_encoder, make_sample, tmp_path):
    for model, words in ((tiny_encoder, "ForQuestionAnswering"), (tiny_model, "Expected a folder that train.py wrote")):
        with pytest.raises(QAError, match=words):
            make_sample("--model_dir", model, "--output_dir", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [None, "no JSON", "[]", "{}", '{"exact_match": "59", "f1": 70.5, "total": 4961}'])
def test_a_card_without_scores_is_refused_before_the_model_is_read(content, make_sample, tmp_path):
    path = tmp_path / "metrics.json"
    if content:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(QAError, match=r"metrics\.json.*Expected metrics\.json of evaluate\.py"):
        make_sample("--model_dir", tmp_path / "no_model", "--output_dir", tmp_path / "new", "--metrics", path)


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        pytest.param("dev/make_random_model.py", ("--output_dir",), marks=pytest.mark.slow),  # torch is imported first
        ("benchmarks/quality/ceiling.py", ("--eval_file", "no_such_file", "--results_dir")),
        ("benchmarks/memory/answering.py", ("--eval_file", "no_such_file", "--results_dir")),
    ],
)
def test_a_result_that_can_not_be_written_is_refused_before_the_work(script, flags, tmp_path):
    (tmp_path / "file").touch()
    done = run_script(script, *flags, tmp_path / "file" / "result", code=2)
    assert_refused(done, "can't be written", f"Choose another {flags[-1]}.")


def test_the_folder_of_a_result_is_made(tmp_path):
    make_room(tmp_path / "new" / "deeper" / "result.json", "--output")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "deeper"]  # what was tried there is gone


def test_pictures_of_the_page_need_playwright(tmp_path):
    (tmp_path / "playwright.py").touch()  # hides the package where it is there
    assert_refused(run_script("dev/screenshots.py", code=2, PYTHONPATH=str(tmp_path)), "Playwright is missing")


def test_the_sample_documents_are_what_the_script_makes_and_answer(tmp_path, capsys):
    made, kept = tmp_path / "documents", PROJECT_ROOT / "data" / "sample" / "documents"
    load_script("dev/make_documents.py").main(["--output_dir", str(made)])
    files = {path.name: path.read_text(encoding="utf-8") for path in made.iterdir()}
    assert files == {path.name: path.read_text(encoding="utf-8") for path in kept.iterdir()}
    reader, index = Reader(SAMPLE_MODEL_DIR, "cpu", backend="torch"), DocumentIndex(kept, tmp_path / "kept")
    for question, answer in (
        ("Who discovered penicillin?", "Alexander Fleming"),
        ("When did construction of the Eiffel Tower begin?", "28 January 1887"),
        ("How much area does the Amazon rainforest cover?", "5.5 million km²"),
    ):
        assert answer in reader.answer_documents(question, index.best(question), ranked=True)["text"]


@pytest.mark.slow
def test_the_ceiling_of_the_sample_questions_is_near_100(real_tokenizer_dir, tmp_path):
    data = PROJECT_ROOT / "data" / "sample"
    run_script("benchmarks/quality/ceiling.py", "--model_dir", real_tokenizer_dir, "--train_file", data / "train.json",
               "--eval_file", data / "dev.json", "--results_dir", tmp_path)  # fmt: skip
    result = json.loads((tmp_path / "ceiling.json").read_text(encoding="utf-8"))
    for windows in ("384/128", "96/32"):
        assert result[windows]["ceiling"]["exact_match"] > 98
        assert result[windows]["labels"]["share"] > 0.98


@pytest.mark.slow
def test_long_contexts_are_scored_under_every_rule(tiny_model, tmp_path):
    file = PROJECT_ROOT / "data" / "sample" / "dev.json"
    run_script("benchmarks/quality/long_contexts.py", "--model_dir", tiny_model, "--eval_file", file,
               "--max_samples", 2, "--results_dir", tmp_path)  # fmt: skip
    results = json.loads((tmp_path / "long_contexts.json").read_text(encoding="utf-8"))["results"]
    assert results.keys() == {"1", "8", "all"}
    assert all(scores.keys() == {"raw", "cls", "softmax"} for scores in results.values())


@pytest.mark.slow
def test_growth_is_measured_and_put_into_its_document(tiny_model, tmp_path):
    (tmp_path / "SCALING.md").write_text("before\n<!-- scaling -->\n<!-- /scaling -->\nafter\n", encoding="utf-8")
    run_script("benchmarks/memory/answering.py", "--only", "scaling", "--model_dir", tiny_model, "--eval_file",
               PROJECT_ROOT / "data/sample/dev.json", "--kilobytes", 1, 4, "--questions", 2, 4, "--docs_dir", tmp_path,
               "--results_dir", tmp_path)  # fmt: skip
    result = json.loads((tmp_path / "scaling.json").read_text(encoding="utf-8"))
    assert [line["kilobytes"] for line in result["contexts"]] == [1, 4]
    assert result["contexts"][1]["windows"] > result["contexts"][0]["windows"]
    assert [line["questions"] for line in result["questions"]] == [2, 4]
    document = (tmp_path / "SCALING.md").read_text(encoding="utf-8")
    assert "| a context of 4 kB |" in document
    assert document.endswith("<!-- /scaling -->\nafter\n")


@pytest.mark.slow
def test_growth_with_files_and_workers_is_measured_too(exported, tmp_path):
    (tmp_path / "SCALING.md").write_text("before\n<!-- shards -->\n<!-- /shards -->\nafter\n", encoding="utf-8")
    run_script("benchmarks/speed/shards.py", "--model_dir", exported, "--eval_file",
               PROJECT_ROOT / "data/sample/dev.json", "--questions", 32, "--pairs", 1, "--some", 20, "--docs_dir",
               tmp_path, "--results_dir", tmp_path)  # fmt: skip
    result = json.loads((tmp_path / "shards_workers.json").read_text(encoding="utf-8"))
    assert {name: len(rates) for name, rates in result["questions_a_second"].items()} == {
        "1 worker(s)": 1, "2 worker(s)": 1
    }  # fmt: skip
    (row,) = json.loads((tmp_path / "shards_growth.json").read_text(encoding="utf-8"))["rows"]
    assert row["questions"] == 20
    assert min(row[name] for name in ("seconds", "worker_mb", "parent_mb")) > 0
    document = (tmp_path / "SCALING.md").read_text(encoding="utf-8")
    assert "| model | 20 | 0 |" in document
    assert document.endswith("<!-- /shards -->\nafter\n")


@pytest.mark.slow
def test_growth_of_an_index_is_measured_too(tmp_path):
    (tmp_path / "SCALING.md").write_text("before\n<!-- documents -->\n<!-- /documents -->\nafter\n", encoding="utf-8")
    run_script("benchmarks/memory/documents.py", "--eval_file", PROJECT_ROOT / "data/sample/dev.json", "--megabytes", 1,
               "--docs_dir", tmp_path, "--results_dir", tmp_path)  # fmt: skip
    (row,) = json.loads((tmp_path / "documents_growth.json").read_text(encoding="utf-8"))["rows"]
    assert row["files"] == 100
    assert [row[part]["read"] for part in ("made", "again", "one_added")] == [100, 0, 1]
    assert row["one_added"]["passages"] == row["made"]["passages"] + 1 > 100
    assert row["again"]["finding_ms"] > 0
    assert "| 1 MB | 100 |" in (tmp_path / "SCALING.md").read_text(encoding="utf-8")


def test_the_picture_of_the_terminal_shows_an_answer_and_fetches_nothing():
    """The README shows it on the web: rich would have it fetch a font."""
    content = (PROJECT_ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    texts = [node.text for node in ElementTree.fromstring(content).iter() if node.tag.endswith("text")]
    assert "$\xa0python\xa0predict.py\xa0demo\xa0--sample" in texts
    assert any(text.startswith("prediction:") for text in texts)
    assert re.findall(r"(?:url\(|href=|src=|@import)\W*\w+:|//(?!www\.w3\.org/2000/svg\")", content) == []
    assert len(content) < 30_000
