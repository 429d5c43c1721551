"""The comparison of recipes: what it trains on is never what it scores, and what is done is not done again."""

import json
import sys

import pytest
from scripts import PROJECT_ROOT, run_script

sys.path.insert(0, str(PROJECT_ROOT / "benchmarks"))

import recipes
from recipes import HELD_OUT, QUEUE, RECIPES, Runs, known_run, split, table


@pytest.fixture
def articles(tmp_path, sample_examples):
    """A file with a question and a context in each of 20 articles."""
    data = []
    for i, example in enumerate(sample_examples[:20]):
        pairs = zip(example["answers"]["text"], example["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        qas = [{"id": str(i), "question": example["question"], "answers": answers}]
        data.append({"title": f"Article {i}", "paragraphs": [{"context": example["context"], "qas": qas}]})
    path = tmp_path / "articles.json"
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return path


def titles(path):
    return [article["title"] for article in json.loads(path.read_text("utf-8"))["data"]]


def test_every_article_is_in_one_part_and_the_draw_is_fixed(articles, tmp_path):
    train, held_out = split(articles, tmp_path / "one")
    assert len(titles(held_out)) == HELD_OUT
    assert sorted(titles(train) + titles(held_out)) == sorted(titles(articles))
    again = split(articles, tmp_path / "two")
    assert [path.read_bytes() for path in again] == [train.read_bytes(), held_out.read_bytes()]


def test_every_run_that_is_named_is_a_recipe_and_its_flags_are_train_pys():
    from small_training import train_script

    runs = QUEUE + [run for recipe in RECIPES.values() for run in recipe.get("teachers", [])]
    assert [known_run(run) for run in runs] == runs
    assert len({recipes.file_name(run) for run in QUEUE}) == len(QUEUE)
    for recipe in RECIPES.values():
        flags = recipes.COMMON | {name: recipe[name] for name in recipe.keys() - {"teachers", "spans", "larger"}}
        args = train_script.parse_args([str(word) for name, value in flags.items() for word in (f"--{name}", value)])
        assert {name: vars(args)[name] for name in flags} == flags


def test_the_table_gives_means_and_spread_and_the_difference_from_plain():
    results = [
        {"recipe": "plain", "exact_match": 50.0, "f1": 60.0},
        {"recipe": "taught", "exact_match": 52.0, "f1": 62.0, "last_weights": {"f1": 61.75}},
        {"recipe": "plain", "exact_match": 51.0, "f1": 61.0},
    ]
    _, _, plain, taught = table(results).splitlines()
    assert plain.endswith("| 2 | 50.50 | 60.50 | 60.00 to 61.00 | +0.00 |  |")
    assert taught.endswith("teacher: longer 3 | 1 | 52.00 | 62.00 |  | +1.50 | 61.75 |")


@pytest.mark.torture
def test_teachers_come_first_and_nothing_is_done_twice(articles, tiny_model, tmp_path, monkeypatch):
    small = {"max_steps": 4, "save_steps": 2, "logging_steps": 2, "per_device_train_batch_size": 2}
    monkeypatch.setattr(recipes, "COMMON", small | {"device": "cpu", "save_total_limit": 1})
    monkeypatch.setattr(recipes, "RECIPES", {"one": {"ema_decay": 0.5}, "two": {"teachers": ["one 1", "one 2"]}})
    called = []

    def counted(script, flags, *more):
        called.append((script, *more))
        done.append(
            run_script(script, *(word for name, value in flags.items() for word in (f"--{name}", value)), *more)
        )

    done = []
    monkeypatch.setattr(recipes, "call", counted)
    runs = Runs(tiny_model, split(articles, tmp_path / "files"), tmp_path / "results", tmp_path / "output")
    result = runs.do("two 7")
    assert [script for script, *_ in called] == ["train.py", "evaluate.py", "train.py", "evaluate.py", "train.py"]
    states = [str(tmp_path / "output" / name / "checkpoint-4") for name in ("one_1", "one_2")]
    assert called[-1][-3:] == ("--teacher_dir", *states)
    assert (result["seed"], result["teachers"], result["questions"]) == (7, ["one 1", "one 2"], 14)
    assert result["f1"] == result["epochs"][-1]["f1"]
    assert runs.do("one 1")["last_weights"].keys() == {"exact_match", "f1"}
    assert runs.do("two 7") == result
    assert len(called) == 5
