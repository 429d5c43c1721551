"""Questions without an answer, as in SQuAD 2: read, learned, scored, and answered with "" and a probability."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import TEXTS
from scripts import load_script, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.export import export
from extractive_qa.metrics import compute_metrics
from extractive_qa.model.folder import ONNX_FILES
from extractive_qa.preprocessing.windows import prepare_train_features, prepare_validation_features
from extractive_qa.reader import Reader
from utils.console import in_flags

QUESTIONS = [
    {"id": "1", "question": "Who counted ships?", "context": TEXTS[0],
     "answers": {"text": ["lighthouse keeper"], "answer_start": [4]}},
    {"id": "2", "question": "Who counted trains?", "context": TEXTS[0], "answers": {"text": [], "answer_start": []}},
    {"id": "3", "question": "What melts at 419.5?", "context": TEXTS[2],
     "answers": {"text": ["zinc", "zinc at"], "answer_start": [32, 32]}},
    {"id": "4", "question": "Where is gold?", "context": TEXTS[2], "answers": {"text": [], "answer_start": []}},
]  # fmt: skip


@pytest.fixture
def questions_file(tmp_path):
    """In SQuAD 2's own nesting, one article."""
    for item in QUESTIONS:
        for text, start in zip(item["answers"]["text"], item["answers"]["answer_start"], strict=True):
            assert item["context"].startswith(text, start)
    paragraphs = [
        {
            "context": item["context"],
            "qas": [
                {
                    "id": item["id"],
                    "question": item["question"],
                    "is_impossible": not item["answers"]["text"],
                    "plausible_answers": [{"text": "The", "answer_start": 0}],
                    "answers": [
                        {"text": text, "answer_start": start}
                        for text, start in zip(*item["answers"].values(), strict=True)
                    ],
                }
            ],
        }
        for item in QUESTIONS
    ]
    path = tmp_path / "squad2.json"
    path.write_text(
        json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}), encoding="utf-8"
    )
    return path


def with_logits(tiny_model, start, end, **settings):
    """A reader whose model gives the same logits for a token wherever it stands: functions of the ids."""
    reader = Reader(tiny_model, "cpu", "no", **settings)

    def logits(features, windows):
        rows = [features[i] for i in windows]
        both = np.zeros((2, len(rows), max(len(row["input_ids"]) for row in rows)), dtype=np.float32)
        for b, row in enumerate(rows):
            both[0, b, : len(row["input_ids"])] = start(row["input_ids"])
            both[1, b, : len(row["input_ids"])] = end(row["input_ids"])
        return rows, both[0], both[1]

    reader.logits = logits
    return reader


@pytest.mark.parametrize("cls", [-6.0, 0.0, 2.5, 4.0, 40.0, 900.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_no_answer_competes_in_one_softmax_with_all_spans(tiny_model, cls, temperature):
    """Against the definition, written out over all spans of one window: its score is that of [CLS]."""
    random = np.random.default_rng(0)
    table = random.normal(size=(2, 40_000))
    reader = with_logits(
        tiny_model, *(lambda ids, t=t: np.where(np.arange(len(ids)) == 0, cls / 2, t[ids]) for t in table),
        max_answer_length=7, handle_impossible_answer=True,
    )  # fmt: skip
    reader.settings["temperature"] = temperature
    context = TEXTS[2]
    features = prepare_validation_features([{"question": "Who?", "context": context}], reader.tokenizer, 384, 128)
    (row,), (start,), (end,) = reader.logits(features, [0])
    spans = {
        tuple(row["offsets"][[i, j], [0, 1]].tolist()): (start[i] + end[j]) / temperature
        for i in range(row["context_start"], row["context_end"])
        for j in range(i, min(i + 7, row["context_end"]))
    } | {(0, 0): cls / temperature}
    scores = np.array(list(spans.values()), dtype=np.float64)
    expected = dict(zip(spans, np.exp(scores - np.logaddexp.reduce(scores)), strict=True))
    answers = reader.answer("Who?", context, top_k=5)
    assert any(answer["text"] == "" for answer in answers) or expected[0, 0] <= answers[-1]["probability"]
    for answer in answers:
        assert answer["probability"] == pytest.approx(expected[answer["start"], answer["end"]], rel=1e-4, abs=1e-9)
    # the rule of BERT's and the official scripts: "" where [CLS] scores more than the best span
    assert (answers[0]["text"] == "") == (
        cls > max(score for span, score in spans.items() if span != (0, 0)) * temperature
    )
    assert [a["probability"] for a in answers] == sorted((a["probability"] for a in answers), reverse=True)
    assert sum(a["probability"] for a in answers) <= 1 + 1e-9


def test_several_windows_are_one_no_answer(tiny_model):
    """Were it counted once a window, a text without any answer would become surer of that by its mere length."""
    flat = with_logits(
        tiny_model, *(lambda ids: np.where(np.arange(len(ids)) == 0, 30.0, 0.0),) * 2,
        max_length=48, doc_stride=16, handle_impossible_answer=True,
    )  # fmt: skip
    answer, *others = flat.answer("Who?", " ".join(TEXTS), top_k=3)
    assert (answer["text"], answer["start"], answer["end"]) == ("", 0, 0)
    assert answer["probability"] == pytest.approx(1)
    assert len(others) == 2
    assert all(other["text"] for other in others)


def test_without_the_setting_there_is_always_an_answer(tiny_model):
    reader = with_logits(tiny_model, *(lambda ids: np.where(np.arange(len(ids)) == 0, 30.0, 0.0),) * 2)
    assert all(answer["text"] for answer in reader.answer("Who?", TEXTS[0], top_k=3))


def test_a_context_without_a_token_has_surely_no_answer_and_no_question_none(tiny_model):
    reader = Reader(tiny_model, "cpu", "no", handle_impossible_answer=True)
    assert reader.answer("Who?", " \n") == {"text": "", "start": 0, "end": 0, "probability": 1.0, "answerable": None,
                                           "places": []}  # fmt: skip
    assert reader.answer(" ", TEXTS[0])["probability"] == 0


def test_questions_without_an_answer_are_read_only_where_they_are_wanted(questions_file):
    with pytest.raises(QAError, match="impossible=True") as caught:
        read_examples(questions_file)
    assert "--handle_impossible_answer" in in_flags(str(caught.value)), "the scripts speak of their flag"
    assert read_examples(questions_file, impossible=True) == QUESTIONS


def test_they_are_labelled_cls_and_the_others_as_before(tokenizer):
    features = prepare_train_features(QUESTIONS, tokenizer, 64, 16)
    alone = prepare_train_features([q for q in QUESTIONS if q["answers"]["text"]], tokenizer, 64, 16)
    labels = [(w["start_position"], w["end_position"]) for w in features]
    without = {i for i, item in enumerate(QUESTIONS) if not item["answers"]["text"]}
    assert {label for w, label in zip(features, labels, strict=True) if w["example_index"] in without} == {(0, 0)}
    kept = [label for w, label in zip(features, labels, strict=True) if w["example_index"] not in without]
    assert kept == [(w["start_position"], w["end_position"]) for w in alone]
    assert any(start for start, _ in kept)


def test_totals_are_those_of_the_official_script():
    """Worked by hand: 1 right, 2 wrongly answered, 3 half right (F1 2/3), 4 rightly not answered."""
    predictions = {"1": "the lighthouse keeper", "2": "keeper", "3": "zinc melts", "4": ""}
    scores = compute_metrics(predictions, QUESTIONS)
    assert scores.pop("f1") == pytest.approx(100 * (1 + 0 + 2 / 3 + 1) / 4)
    assert scores.pop("HasAns_f1") == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert scores == {
        "exact_match": 50, "total": 4, "HasAns_exact": 50, "HasAns_total": 2, "NoAns_exact": 50, "NoAns_f1": 50,
        "NoAns_total": 2,
    }  # fmt: skip
    assert "NoAns_total" not in compute_metrics(predictions, QUESTIONS[:1])
    assert compute_metrics({}, QUESTIONS)["NoAns_exact"] == 0, "no prediction is not the prediction of no answer"


def test_training_on_them_is_saved_and_taken_up_by_the_other_scripts(tiny_model, questions_file, tmp_path, capsys):
    output = tmp_path / "output"
    files = ("--train_file", questions_file, "--eval_file", questions_file)
    run_script("train.py", "--model_dir", tiny_model, *files, "--output_dir", output, "--device", "cpu",
               "--handle_impossible_answer", "--max_steps", 1, "--mixed_precision", "no")  # fmt: skip
    model = output / "final_model"
    settings = json.loads((model / "reader.json").read_text(encoding="utf-8"))
    assert settings["handle_impossible_answer"] is True
    assert settings["scores"]["NoAns_total"] == 2
    evaluate, eval_file = load_script("evaluate.py"), ("--eval_file", str(questions_file))
    evaluate.main(["--model_dir", str(model), *eval_file, "--output_dir", str(tmp_path), "--show_examples",
                   "--device", "cpu", "--mixed_precision", "no"])  # fmt: skip
    said = capsys.readouterr().out
    assert "questions without" in said
    assert "(no answer)" in said
    evaluate.main(["--predictions", str(tmp_path / "predictions.json"), *eval_file, "--handle_impossible_answer"])
    scores = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    without = f"EM {scores['NoAns_exact']:.2f}  F1 {scores['NoAns_f1']:.2f}  on 2 questions without"
    assert without in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "settings"), [(["--handle_impossible_answer"], False), ([], True)])
def test_a_model_that_may_find_none_is_exported_on_its_own_questions(
    tiny_model, tmp_path, monkeypatch, flags, settings
):
    export_onnx = load_script("tools/export_onnx.py")
    checked, original = [], export.answer_all

    def answer_all(reader, examples, *rest):
        checked.append((reader.settings["handle_impossible_answer"], [example["id"] for example in examples]))
        return original(reader, examples, *rest)

    monkeypatch.setattr(export, "answer_all", answer_all)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "reader.json").write_text(json.dumps({"handle_impossible_answer": settings}), encoding="utf-8")
    records = [*QUESTIONS, {"id": "bad", "question": "Who?"}]
    path = tmp_path / "squad2.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    files = ["--model_dir", str(model), "--eval_file", str(path), "--calibration_file", str(path)]
    with pytest.raises(QAError, match=r"1 problem(?s:.*)skip_bad=True"):
        export_onnx.main([*files, *flags])
    export_onnx.main([*files, *flags, "--skip_bad_examples", "--force"])
    assert checked == [(True, ["1", "2", "3", "4"])] * 2
    assert (model / ONNX_FILES["int8"]).is_file()


def test_they_are_looked_at_where_they_are_wanted(questions_file, real_tokenizer_dir, capsys):
    inspect_data = load_script("tools/inspect_data.py")
    arguments = [str(questions_file), "--model_dir", str(real_tokenizer_dir), "--show", "4"]
    with pytest.raises(QAError, match=r"2 problem\(s\)"):
        inspect_data.main(arguments)
    inspect_data.main([*arguments, "--handle_impossible_answer"])
    said = capsys.readouterr().out
    assert "4 questions on 2 contexts (2.0 each), 3 answers; 2 (50.0%) questions have none" in said
    assert re.findall(r"^id (\d): .*\n(answer: \w+|window)", said, re.MULTILINE) == [
        ("1", "answer: lighthouse"), ("2", "window"), ("3", "answer: zinc"), ("4", "window"),
    ]  # fmt: skip
    assert said.count("tokens, the question has no answer, label: [CLS]") == 2
    assert "answers in tokens (median 1," in said  # of the two that have some
    assert "nothing to fix" in said
