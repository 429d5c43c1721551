"""The comparison of recipes: what it trains on is never what it scores, and what is done is not done again."""

import json
import sys

import pytest
from scripts import PROJECT_ROOT, run_script

sys.path.insert(0, str(PROJECT_ROOT / "benchmarks"))
sys.path.insert(0, str(PROJECT_ROOT / "benchmarks" / "quality"))

import harness
import recipes
from recipes import HELD_OUT, QUEUE, RECIPES, Runs, split, table

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.progress import NoProgress
from extractive_qa.training.distillation import from_model, question_keys


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


def test_every_run_that_is_named_is_a_recipe_and_its_flags_are_train_pys(tmp_path):
    from small_training import train_script

    runs = QUEUE + [run for recipe in RECIPES.values() for run in recipe.get("teachers", [])]
    assert {run.rpartition(" ")[0] for run in runs} == RECIPES.keys()
    places = Runs(tmp_path, None, (tmp_path, tmp_path), tmp_path, tmp_path)
    assert len({places.result(run) for run in QUEUE}) == len(QUEUE)
    for run in ("no such recipe 1", "plain", "plain one"):
        with pytest.raises(QAError, match="no recipe and seed"):
            recipes.main(["--runs", run, "--results_dir", str(tmp_path)])
    for recipe in RECIPES.values():
        flags = recipes.COMMON | {name: recipe[name] for name in recipe.keys() - {"teachers", "larger", "reader"}}
        args = train_script.parse_args([str(word) for name, value in flags.items() for word in (f"--{name}", value)])
        assert {name: vars(args)[name] for name in flags} == flags


def test_the_table_gives_means_and_spread_and_the_difference_from_the_first():
    def run(recipe, seed, exact_match, f1, **more):
        flags = {"seed": seed, "learning_rate": 1e-4}
        return {"recipe": recipe, "flags": flags, "teachers": [], "exact_match": exact_match, "f1": f1} | more

    results = [
        run("taught", 2, 52.0, 62.0, teachers=["longer 3"], averaged={"f1": 61.75}),
        run("plain", 1, 50.0, 60.0),
        run("plain", 2, 51.0, 61.0, long_contexts={"f1": 49.0}),
        run("longer", 1, 51.0, 60.5),
        run("longer", 2, 51.0, 60.0, long_contexts={"f1": 50.0}),
        run("larger", 3, 70.0, 80.0),
    ]
    _, _, *lines = table(results).splitlines()
    rate = "`--learning_rate 0.0001`"
    assert lines == [
        f"| plain | {rate} | 2 | 50.50 | 60.50 | (60.00 to 61.00) | +0.00 | 49.00 | +0.00 |  |",
        f"| longer | {rate} | 2 | 51.00 | 60.25 | (60.00 to 60.50) | -0.25 (-1.00 to +0.50) | 50.00 | +1.00 |  |",
        f"| larger | {rate} | 1 | 70.00 | 80.00 |  | +19.50 |  |  |  |",
        f"| taught | {rate}, teacher: longer 3 | 1 | 52.00 | 62.00 |  | +1.00 |  |  | 61.75 |",
    ]


def test_fewer_questions_have_a_table_of_their_own_and_what_was_given_up_comes_last(monkeypatch):
    part = {
        "recipe": "a third",
        "flags": {"seed": 1, "max_train_samples": 9},
        "teachers": [],
        "exact_match": 30.0,
        "f1": 40.0,
    }
    given_up = part | {"recipe": "a flag that is gone", "flags": part["flags"] | {"gone": 0.5}, "f1": 39.0}
    whole = part | {"recipe": "plain", "flags": {"seed": 1}, "f1": 60.0, "spans": {"num_train_epochs": 1}}
    monkeypatch.setitem(RECIPES, "a third", {})
    first, _, second = table([given_up, part, whole]).partition("\n\n")
    assert "| plain | 1 epoch of recurring spans before | 1 |" in first
    assert [line.split(" | ")[0] for line in second.splitlines()[2:]] == ["| a third", "| a flag that is gone"]
    assert "`--gone 0.5`" in second
    scored = part | {"passages": {"passages": {"5": {"cls": 51.2}}, "auroc": {"any": 0.8768}}}
    assert table([scored]).endswith(" 40.00 | +0.00 | 51.20 | 0.877 |\n")
    assert "| -1.00 |" in second


SMALL = {
    "max_steps": 4, "save_steps": 2, "logging_steps": 2, "per_device_train_batch_size": 2, "device": "cpu",
    "save_total_limit": 1, "max_eval_samples": 5,
}  # fmt: skip


SCRIPTS = ["train.py", "evaluate.py", "evaluate.py", "benchmarks/quality/passages.py"]  # of a run


def listed_calls(monkeypatch) -> list[tuple]:
    """The scripts that recipes.py calls from now on, each with what follows its flags."""
    called = []

    def listed(script, flags, *more):
        called.append((script, *more))
        run_script(script, *(word for name, value in flags.items() for word in (f"--{name}", value)), *more)

    monkeypatch.setattr(harness, "run_script", listed)
    return called


@pytest.mark.slow
def test_teachers_come_first_and_nothing_is_done_twice(articles, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "COMMON", SMALL)
    monkeypatch.setattr(recipes, "RECIPES", {"one": {}, "two": {"teachers": ["one 1", "one 2"]}})
    called = listed_calls(monkeypatch)
    runs = Runs(tiny_model, None, split(articles, tmp_path / "files"), tmp_path / "results", tmp_path / "output")
    result = runs.do("two 7")
    assert [script for script, *_ in called] == SCRIPTS * 3
    states = [tmp_path / "output" / name / "checkpoint-4" for name in ("one_1", "one_2")]
    assert called[-4][-3:] == ("--teacher_dir", *states)
    assert (result["seed"], result["teachers"], result["questions"]) == (7, ["one 1", "one 2"], 14)
    assert result["total"] == HELD_OUT  # all of them, not the few that train.py scores
    assert result["long_contexts"]["total"] == HELD_OUT
    assert result["passages"]["questions"] == HELD_OUT
    assert runs.do("two 7") == result
    assert len(called) == 12


@pytest.mark.slow
def test_a_larger_teacher_learns_from_the_split(articles, tiny_model, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "COMMON", SMALL)
    monkeypatch.setattr(recipes, "RECIPES", {"large": {"larger": True}, "taught": {"teachers": ["large 1"]}})
    called = listed_calls(monkeypatch)
    files = split(articles, tmp_path / "files")
    held_out = Runs(tiny_encoder, tiny_model, files, tmp_path / "results", tmp_path / "output")
    final = Runs(tiny_encoder, tiny_model, (articles, articles), tmp_path / "final", tmp_path / "last", larger=held_out)
    result = final.do("taught 3")
    assert [script for script, *_ in called] == SCRIPTS * 2
    teacher = tmp_path / "output" / "large_1" / "checkpoint-4"
    assert called[4][-2:] == ("--teacher_dir", teacher)
    assert (result["teachers"], result["questions"]) == (["large 1"], 20)
    lacking = Runs(tiny_encoder, None, files, tmp_path / "no_results", tmp_path / "no_output")
    with pytest.raises(QAError, match="large 1 needs --larger_model_dir"):
        lacking.do("taught 3")
    examples = read_examples(articles, "train")
    answers, _ = from_model(teacher, examples, question_keys(examples), "cpu", "no", tmp_path, False, NoProgress)
    answers.save(lacking.result("large 1").with_suffix(".teacher"))
    assert lacking.do("taught 3")["teachers"] == ["large 1"]
    assert called[-4][-2:] == ("--teacher_dir", tmp_path / "no_results" / "large_1.teacher")


def test_the_runs_of_a_reader_are_compared_with_each_other_alone():
    def run(recipe, f1, **flags):
        return {"recipe": recipe, "teachers": [], "exact_match": 50.0, "f1": f1} | {"flags": {"seed": 1} | flags}

    runs = [run("reader, four layers", 70.0, keep_layers="4"), run("reader, all layers", 75.0), run("plain", 60.0)]
    runs.append(run("reader, four layers spread", 68.0, keep_layers="0,2,3,5"))
    first, _, second = table(runs).partition("\n\n")
    assert [line.split(" | ")[0] for line in first.splitlines()[2:]] == ["| plain"]
    assert [line.split(" | ")[:2] for line in second.splitlines()[2:]] == [
        ["| reader, all layers", ""], ["| reader, four layers", "`--keep_layers 4`"],
        ["| reader, four layers spread", "`--keep_layers 0,2,3,5`"],
    ]  # fmt: skip
    assert "| -5.00 |" in second


def test_a_reader_of_fewer_layers_begins_with_it_and_is_taught_by_it(tmp_path, monkeypatch):
    trained, files = [], (tmp_path / "train", tmp_path / "dev")
    monkeypatch.setattr(Runs, "train", lambda runs, *of: trained.append(of))
    monkeypatch.setattr(Runs, "collect", lambda runs, folder, recipe, flags, teachers: {"teachers": teachers})
    runs = Runs(
        None, None, files, tmp_path / "results", tmp_path / "out", reader_dir=tmp_path / "reader", questions=300
    )
    for recipe, layers, teachers in (
        ("reader, all layers", None, [tmp_path / "reader"]), ("reader, four layers", "4", [tmp_path / "reader"]),
        ("reader, four layers, untaught", "4", []),
    ):  # fmt: skip
        assert runs.do(f"{recipe} 2")["teachers"] == ["the reader"] * len(teachers)
        folder, encoder, flags, found = trained[-1]
        assert (encoder, found, flags.get("keep_layers")) == (tmp_path / "reader", teachers, layers)
        assert (flags["max_train_samples"], flags["seed"], folder.name[-9:]) == (300, 2, "_2_of_300")
        assert not {"reader", "teachers"} & flags.keys()
    steps = {(flags["num_train_epochs"], flags["max_train_samples"]) for *_, flags, _ in trained}
    assert len(steps) == 1  # as many for all
