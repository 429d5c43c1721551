"""The model card of a trained folder, and the other places where it must feel at home."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from small_training import log_without_times

from extractive_qa.data.examples import read_examples
from extractive_qa.files.manifest import write_manifest
from extractive_qa.reader import Reader
from extractive_qa.training.model_card import model_card
from utils.offline import SAMPLE_DATA_DIR

SCORES = {"exact_match": 82.3, "f1": 89.71234567, "total": 10570}
SETTINGS = {"learning_rate": 3e-5, "seed": 42, "num_train_epochs": 3, "device": "cuda"}


def made(folder, source=None, readme=None):
    """A folder that came from `source`, as download_data.py leaves it."""
    folder.mkdir()
    (folder / "file").write_text("x", encoding="utf-8")
    if readme is not None:
        (folder / "README.md").write_text(readme, encoding="utf-8")
    if source:
        write_manifest(folder, source, "main")
    return folder


def card(model_dir, data, **settings) -> ModelCard:
    return ModelCard(model_card(SETTINGS | settings, SCORES, model_dir, data, data))


@pytest.mark.parametrize("host", ["https://huggingface.co", "https://hf-mirror.com"])
def test_what_was_downloaded_is_named(host, tmp_path):
    found = card(
        made(tmp_path / "m", f"{host}/google/mobilebert-uncased"),
        made(tmp_path / "d", f"{host}/datasets/rajpurkar/squad"),
    )
    data = found.data
    assert (data.base_model, data.license, data.language) == ("google/mobilebert-uncased", "apache-2.0", "en")
    assert data.datasets == ["rajpurkar/squad"]
    assert (data.pipeline_tag, data.library_name) == ("question-answering", "transformers")
    results = {result.metric_type: result for result in data.eval_results}
    assert (results["exact_match"].metric_value, results["f1"].metric_value) == (82.3, 89.7123)
    assert all(r.dataset_type == "rajpurkar/squad" and r.dataset_split == "validation" for r in results.values())
    assert "| learning_rate | 3e-05 |" in found.text
    assert "device" not in found.text


def test_what_was_learned_and_scored_in_part_is_not_said_of_all(tmp_path):
    model, data = made(tmp_path / "m"), made(tmp_path / "d", "https://huggingface.co/datasets/rajpurkar/squad")
    found = card(model, data, max_train_samples=1000, max_eval_samples=None)
    assert "on\na part of SQuAD 1.1.\n" in found.text
    assert "| max_train_samples | 1000 |" in found.text
    assert {result.dataset_type for result in found.data.eval_results} == {"rajpurkar/squad"}
    found = card(model, data, max_train_samples=None, max_eval_samples=100)
    assert "on\nSQuAD 1.1.\n" in found.text
    assert "max_train_samples" not in found.text
    assert "| a part of SQuAD 1.1 | 10,570 |" in found.text
    results = found.data.eval_results
    assert {(result.dataset_type, result.dataset_name) for result in results} == {("own", "a part of SQuAD 1.1")}


def test_teachers_are_named(tmp_path):
    flags = {"teacher_dir": ["large", "larger"], "distillation_weight": 0.5}
    text = card(made(tmp_path / "m"), made(tmp_path / "d"), **flags).text
    for line in ("| teacher_dir | large, larger |", "| distillation_weight | 0.5 |"):
        assert line in text
    assert "distillation" not in card(tmp_path / "m", tmp_path / "d", teacher_dir=[], distillation_weight=0.5).text


def test_of_own_data_and_an_own_encoder_nothing_is_claimed(tmp_path):
    found = card(made(tmp_path / "encoder"), made(tmp_path / "my questions"))
    metadata = yaml.safe_load(found.content.split("---")[1])
    assert not {"license", "language", "base_model", "datasets"} & metadata.keys()
    assert {result.dataset_name for result in found.data.eval_results} == {"my questions"}
    assert "Nothing is known here about the licence" in found.text


@pytest.mark.parametrize(
    ("readme", "licence"),
    [("---\nlicense: mit\n---\n# x\n", "mit"), ("---\nlicense: [\n---\n", None), ("# none\n", None),
     ("---\n- 1\n---\n", None), ("---\nlicense: [mit, other]\n---\n", None)],
)  # fmt: skip
def test_the_licence_is_what_the_base_model_s_own_card_says(readme, licence, tmp_path):
    assert card(made(tmp_path / "encoder", readme=readme), made(tmp_path / "d")).data.license == licence


def test_the_final_model_has_a_card_with_its_scores(trained):
    found = ModelCard.load(trained / "final_model" / "README.md")
    scores = json.loads((trained / "final_model" / "reader.json").read_text(encoding="utf-8"))["scores"]
    values = {result.metric_type: result.metric_value for result in found.data.eval_results}
    assert values == pytest.approx({name: scores[name] for name in ("exact_match", "f1")}, abs=1e-4)
    for line in ("| learning_rate | 0.001 |", "| mixed_precision | no |", "| processes | 1 |"):
        assert line in found.text
    assert str(trained) not in found.content
    (code,) = re.findall(r"^```python\n(.*?)^```$", found.text, re.MULTILINE | re.DOTALL)
    assert 'Reader("path/to/this/folder")' in code
    names = {}
    exec(code.replace("path/to/this/folder", (trained / "final_model").as_posix()), names)  # as a reader of it would
    assert names["reader"].model_dir == trained / "final_model"
    assert not list(trained.glob("checkpoint-*/README.md"))


def test_tensorboard_shows_what_the_log_holds(trained):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(trained / "runs"))
    board.Reload()
    for name in ("loss", "learning_rate", "grad_norm", "exact_match", "f1"):
        expected = [
            (line["step"], pytest.approx(line[name], rel=1e-6)) for line in log_without_times(trained) if name in line
        ]
        assert [(event.step, event.value) for event in board.Scalars(name)] == expected
        assert expected


def test_predictions_score_the_same_by_another_hand(trained):
    """torchmetrics' own implementation of the official script."""
    from torchmetrics.text import SQuAD

    from extractive_qa.metrics import compute_metrics

    examples = read_examples(SAMPLE_DATA_DIR / "dev.json")[:8]
    answers = [answer["text"] for answer, *_ in Reader(trained / "final_model", "cpu", "no").answer_all(examples)]
    metric = SQuAD()
    metric.update(
        [{"id": e["id"], "prediction_text": text} for e, text in zip(examples, answers, strict=True)],
        [{"id": e["id"], "answers": e["answers"]} for e in examples],
    )
    ours = compute_metrics({e["id"]: text for e, text in zip(examples, answers, strict=True)}, examples)
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(
        {name: ours[name] for name in ("exact_match", "f1")}, rel=1e-5
    )
