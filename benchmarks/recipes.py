"""Which way of training gives the best answers? Recipes compared on articles that none of them was trained on.

    python benchmarks/recipes.py --model_dir <MiniLM folder> --larger_model_dir <MPNet folder>   # what is not done yet
    python benchmarks/recipes.py --model_dir <MiniLM folder> --runs "plain 2"                    # a recipe with a seed
    python benchmarks/recipes.py --model_dir <MiniLM folder> --final --runs "plain 1" "plain 2"
    python benchmarks/recipes.py --table                                             # only the table in docs/RESULTS.md

A run is a recipe with a seed: train.py as a user runs it, on the articles of --train_file but 6, drawn with a fixed
seed. evaluate.py scores the state after the last step on those 6, and on 500 of their questions asked of 8 paragraphs:
no epoch is chosen by its score, so train.py scores 100 questions only. A recipe's teachers are other runs, made first
where they are missing, each in the state after its last step. --final trains on all of --train_file and scores
--eval_file, by which nothing was chosen; its teachers are trained so too, but for the larger one, which learned from
the articles of the split. Without --larger_model_dir the larger one's answers that lie beside its result serve in its
place: a copy of the file that its asking left in data/cache.

Runs are done one after another, in output/recipes. What was stopped (Ctrl-C) goes on where it was, and what has a
result in benchmarks/results/recipes is not done again. On one CPU core a run takes from half an hour to hours. Writes
the table in docs/RESULTS.md, between <!-- recipes --> and <!-- /recipes -->.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import OUTPUT_DIR, PROJECT_ROOT, go_offline

go_offline()

from long_contexts import articles_of, join
from pairs import DEV_FILE, RESULTS_DIR, TRAIN_FILE, cpu, own_versions

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.reading import read_json, with_table
from extractive_qa.training.checkpoints import list_checkpoints, read_state
from utils import console

HELD_OUT, SPLIT_SEED = 6, 0  # articles, and what draws them
LONG_QUESTIONS, PARAGRAPHS = 500, 8  # asked of so many paragraphs of their article
BEGIN, END = "<!-- recipes -->\n", "<!-- /recipes -->"
COMMON = {
    "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "max_eval_samples": 100, "save_total_limit": 1,
}  # fmt: skip
HOW = {*COMMON, "seed", "per_device_eval_batch_size"}  # flags that the table does not repeat
LONGER = {"num_train_epochs": 3, "learning_rate": 2e-4}
THIRD = LONGER | {"max_train_samples": 3400, "teachers": ["larger 1"]}
FEW = {"num_train_epochs": 6, "learning_rate": 1e-4, "max_train_samples": 300}
TEACHERS = ["longer 1", "longer 2", "longer 3"]
# train.py's flags; under "teachers" the runs to learn from
RECIPES = {
    "plain": {"num_train_epochs": 2, "learning_rate": 1e-4},
    "longer": LONGER,
    "longer, higher rate": LONGER | {"learning_rate": 4e-4},
    # of --larger_model_dir, a larger encoder than all the others start from
    "larger": {"num_train_epochs": 1, "learning_rate": 5e-5, "larger": True},
    "taught by larger": LONGER | {"teachers": ["larger 1"]},
    "taught more by larger": LONGER | {"teachers": ["larger 1"], "distillation_weight": 0.9},
    "taught by larger, as it answers": LONGER
    | {"teachers": ["larger 1"], "distillation_weight": 0.9, "distillation_temperature": 1},
    "taught by larger, still longer": LONGER | {"num_train_epochs": 5, "teachers": ["larger 1"]},
    "taught": LONGER | {"teachers": TEACHERS},
    # less to learn from, in less time: what was given up was measured beside it
    "third": THIRD,
    "third, joined with neighbours": THIRD | {"joined_contexts": 0.3},
    # as few as somebody has who wrote them, and no teacher
    "few": FEW,
    "few, as many steps": FEW | {"num_train_epochs": 17},  # as 6 epochs and a stage on raw text before them
}
# in the order in which most is learned for the time
QUEUE = [
    "plain 1", "longer 1", "larger 1", "taught by larger 1", "taught by larger, as it answers 1",
    "taught by larger 2", "taught by larger 3", "plain 2", "plain 3", "longer 2", "longer 3", "taught 4",
    "longer, higher rate 1", "taught by larger, still longer 1", "taught more by larger 1", "third 1", "third 2",
    "third 3", "third, joined with neighbours 1", "third, joined with neighbours 2", "third, joined with neighbours 3",
    "few 1", "few 2", "few 3", "few, as many steps 1", "few, as many steps 2", "few, as many steps 3",
]  # fmt: skip


def split(train_file: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the articles to train on and those held out as two files to `folder`. Returns their paths."""
    articles = read_json(train_file, "SQuAD's nesting: data > paragraphs")["data"]
    held_out = random.Random(SPLIT_SEED).sample(sorted(article["title"] for article in articles), HELD_OUT)
    paths = folder / "train.json", folder / "held_out.json"
    folder.mkdir(parents=True, exist_ok=True)
    for path, wanted in zip(paths, (False, True), strict=True):
        part = [article for article in articles if (article["title"] in held_out) == wanted]
        path.write_text(json.dumps({"version": "1.1", "data": part}), encoding="utf-8")
    return paths


def among_paragraphs(eval_file: Path, path: Path) -> Path:
    """Writes questions of `eval_file`, each asked of its paragraph and its neighbours, to `path`, and returns that."""
    examples = read_examples(eval_file)
    examples = random.Random(SPLIT_SEED).sample(examples, min(LONG_QUESTIONS, len(examples)))
    article_of = {context: article for article in articles_of(eval_file) for context in article}
    joined = [join(example, article_of[example["context"]], PARAGRAPHS) for example in examples]
    path.write_text(json.dumps(joined), encoding="utf-8")
    return path


class Runs:
    """The runs of one model on one pair of files: `files` to train on and to score. larger: where the runs of the
    larger model are done, if not here."""

    def __init__(
        self, model_dir: Path, larger_model_dir: Path | None, files: tuple[Path, Path], results_dir: Path,
        output_dir: Path, larger: "Runs | None" = None,
    ):  # fmt: skip
        self.larger_model_dir, self.larger = larger_model_dir, larger
        self.model_dir, self.files, self.results_dir, self.output_dir = model_dir, files, results_dir, output_dir

    def result(self, run: str) -> Path:
        return self.results_dir / f"{file_name(run)}.json"

    def folder(self, run: str) -> Path:
        return self.output_dir / file_name(run)

    def do(self, run: str) -> dict:
        """The result of a run, which is trained and scored where that was not done yet."""
        if not self.result(run).exists():
            recipe, _, seed = run.rpartition(" ")
            flags = COMMON | {"seed": int(seed)} | RECIPES[recipe]
            teachers = flags.pop("teachers", [])
            encoder = self.larger_model_dir if flags.pop("larger", False) else self.model_dir
            if encoder is None:
                raise QAError(f"{run} needs --larger_model_dir, the folder of a larger encoder. See --help")
            folders = [self.last_state(teacher) for teacher in teachers]
            console.note(f"run: {run}")
            self.train(self.folder(run), encoder, flags, folders)
            result = self.collect(self.folder(run), recipe, flags, teachers)
            self.result(run).parent.mkdir(parents=True, exist_ok=True)
            self.result(run).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return read_json(self.result(run), "the result of a run")

    def last_state(self, run: str) -> Path:
        """The folder of a run's last state. Made anew where there is only its result, from another machine maybe; but
        of the larger model's a file of its answers does."""
        larger = RECIPES[run.rpartition(" ")[0]].get("larger")
        if self.larger is not None and larger:
            return self.larger.last_state(run)
        if not list_checkpoints(self.folder(run)):
            answers = self.result(run).with_suffix(".teacher")
            if larger and self.larger_model_dir is None and answers.is_file():
                return answers
            self.result(run).unlink(missing_ok=True)
        self.do(run)
        return list_checkpoints(self.folder(run))[-1]

    def train(self, folder: Path, encoder: Path, flags: dict, teachers: list[Path]) -> None:
        """Runs train.py in `folder`, from the beginning or from where it was stopped."""
        if list_checkpoints(folder):
            call("train.py", {"output_dir": folder}, "--resume")
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "commit.txt").write_text(commit(), encoding="utf-8")
        files = {"model_dir": encoder, "output_dir": folder, "train_file": self.files[0], "eval_file": self.files[1]}
        words = ["--teacher_dir", *map(str, teachers)] if teachers else []
        call("train.py", files | flags, "--overwrite_output_dir", *words)

    def collect(self, folder: Path, recipe: str, flags: dict, teachers: list[str]) -> dict:
        """What a finished run showed: the scores of its last state, and from its log how fast it was."""
        lines = [json.loads(line) for line in (folder / "training_log.jsonl").read_text("utf-8").splitlines()]
        last = list_checkpoints(folder)[-1]
        state = read_state(last)
        scores = self.score(last, self.files[1], folder / "scores")
        of_long = self.score(last, among_paragraphs(self.files[1], folder / "long.json"), folder / "long_scores")
        questions = sum(
            len(paragraph["qas"])
            for article in read_json(self.files[0], "SQuAD's nesting")["data"]
            for paragraph in article["paragraphs"]
        )
        questions = min(questions, flags.get("max_train_samples", questions))
        rates = [line["questions_per_second"] for line in lines if "questions_per_second" in line]
        return {
            "recipe": recipe, "seed": flags["seed"], "flags": flags, "teachers": teachers,
            **scores, "long_contexts": of_long,
            "questions": questions, "windows": state["windows"],
            "windows_per_second": statistics.median(rates) * state["windows"] / questions,
            "mixed_precision": state["precision"],
            "commit": (folder / "commit.txt").read_text("utf-8"), "device": cpu(), "versions": own_versions(),
        }  # fmt: skip

    def score(self, model_dir: Path, eval_file: Path, folder: Path) -> dict:
        """exact_match, f1 and total of a model on a file. What evaluate.py writes stays in `folder`."""
        call("evaluate.py", {"model_dir": model_dir, "eval_file": eval_file, "output_dir": folder})
        scores = read_json(folder / "metrics.json", "scores")
        return {name: scores[name] for name in ("exact_match", "f1", "total")}


def call(script: str, flags: dict, *more: str | Path) -> None:
    """Runs a script of this project as a user does. Raises QAError where it fails, KeyboardInterrupt where it was
    interrupted."""
    command = [sys.executable, str(PROJECT_ROOT / script)]
    command += [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    code = subprocess.run([*command, *map(str, more)], check=False).returncode
    if code == 130:
        raise KeyboardInterrupt("stopped: the same command goes on from there")
    if code:
        raise QAError(f"{script} ended with exit code {code}: see above")


def file_name(run: str) -> str:
    return run.replace(",", "").replace(" ", "_")


def commit() -> str:
    """The revision of the sources, with a + where they differ from it."""
    git = ["git", "-C", str(PROJECT_ROOT)]
    revision = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], check=False).returncode
    return revision.stdout.strip() + ("+" if changed else "")


def table(results: list[dict]) -> str:
    """The table in Markdown: a line a recipe, each beside the first of those that learned from as many questions, seed
    by seed where both have the seed. In the order of RECIPES, and after them those that were given up: train.py has
    lost their flags since."""
    heads = (
        "recipe", "settings", "runs", "EM", "F1", "F1, spread", "F1 against the first",
        f"F1 of {PARAGRAPHS} paragraphs", "that against the first", "F1, weights averaged",
    )  # fmt: skip
    order = list(RECIPES)
    results = sorted(results, key=lambda run: order.index(run["recipe"]) if run["recipe"] in order else len(order))
    tables = {}  # by the questions learned from
    for run in results:
        runs = tables.setdefault(run["flags"].get("max_train_samples"), {}).setdefault(run["recipe"], [])
        runs.append(run)
    made = []
    for recipes in tables.values():
        first = next(iter(recipes.values()))
        rows = []
        for recipe, runs in recipes.items():
            f1, long, averaged = (f1_by_seed(runs, part) for part in ("", "long_contexts", "averaged"))
            rows.append([
                recipe, settings(runs[0]), str(len(runs)), f"{statistics.mean(run['exact_match'] for run in runs):.2f}",
                mean(f1), spread(f1.values(), ".2f"), gain(f1, f1_by_seed(first)),
                mean(long), gain(long, f1_by_seed(first, "long_contexts")), mean(averaged),
            ])  # fmt: skip
        told = [[head, "---", *cells] for head, *cells in zip(heads, *rows, strict=True) if any(cells)]
        made.append("".join(f"| {' | '.join(row)} |\n" for row in zip(*told, strict=True)))
    return "\n".join(made)


def f1_by_seed(runs: list[dict], part: str = "") -> dict[int, float]:
    """F1 of the runs that have it, or of one of their other scores."""
    return {run["flags"]["seed"]: (run[part] if part else run)["f1"] for run in runs if not part or part in run}


def mean(by_seed: dict[int, float]) -> str:
    return f"{statistics.mean(by_seed.values()):.2f}" if by_seed else ""


def gain(by_seed: dict[int, float], first: dict[int, float]) -> str:
    """The mean difference from the first recipe and its spread, seed by seed; where no seed is shared that of means."""
    if not by_seed or not first:
        return ""
    gains = [f1 - first[seed] for seed, f1 in by_seed.items() if seed in first]
    gained = statistics.mean(gains) if gains else statistics.mean(by_seed.values()) - statistics.mean(first.values())
    return f"{gained:+.2f} {spread(gains, '+.2f')}".strip()


def spread(values: Iterable[float], form: str) -> str:
    """From the least to the most, or nothing where all are the same."""
    low, high = min(values, default=0), max(values, default=0)
    return f"({low:{form}} to {high:{form}})" if low < high else ""


def settings(run: dict) -> str:
    """How a run differs from what all have in common."""
    flags = {name: value for name, value in run["flags"].items() if name not in HOW}
    told = [f"`--{name} {value:g}`" for name, value in flags.items()]
    if spans := run.get("spans"):  # a stage on raw text, given up
        told += [f"{spans['num_train_epochs']} epoch of recurring spans before"]
    return ", ".join(told + [f"teacher: {teacher}" for teacher in run["teachers"]])


def write_table(results_dir: Path) -> str:
    """Puts the table of the results at hand into docs/RESULTS.md, and one of the final runs below it where there are
    any. Returns both."""
    held_out, final = (
        [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
        for folder in (results_dir, results_dir / "final")
    )
    made = table(held_out)
    if final:
        made += f"\nTrained on all articles, scored on the dev questions:\n\n{table(final)}"
    path = PROJECT_ROOT / "docs" / "RESULTS.md"
    text = with_table(path.read_text(encoding="utf-8"), made, "docs/RESULTS.md", BEGIN, END)
    path.write_text(text, encoding="utf-8", newline="\n")
    return made


def known_run(text: str) -> str:
    recipe, _, seed = text.rpartition(" ")
    if recipe not in RECIPES or not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no recipe and seed. Recipes: {'; '.join(RECIPES)}")
    return text


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    add = parser.add_argument
    add("--model_dir", type=Path, help="the encoder to start from")
    add("--larger_model_dir", type=Path, help="the encoder of the recipe `larger`, a teacher")
    add("--train_file", type=Path, default=TRAIN_FILE, help="SQuAD JSON whose articles are split")
    add("--eval_file", type=Path, default=DEV_FILE, help="what --final scores")
    add("--runs", type=known_run, nargs="+", default=QUEUE, metavar="RUN", help="recipes, each with a seed")
    add("--final", action="store_true", help="train on all articles and score --eval_file")
    add("--results_dir", type=Path, default=RESULTS_DIR / "recipes", help="a JSON file a run")
    add("--output_dir", type=Path, default=OUTPUT_DIR / "recipes", help="trainings, and the two files of the split")
    add("--table", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    if args.table:
        print(write_table(args.results_dir), end="")
        return
    if args.model_dir is None:
        raise QAError("--model_dir is missing. Expected the folder of an encoder. See --help")
    encoders = args.model_dir, args.larger_model_dir
    runs = Runs(*encoders, split(args.train_file, args.output_dir), args.results_dir, args.output_dir)
    if args.final:
        places = args.results_dir / "final", args.output_dir / "final"
        runs = Runs(*encoders, (args.train_file, args.eval_file), *places, larger=runs)
    for run in args.runs:
        result = runs.do(run)
        print(f"{run}: EM {result['exact_match']:.2f}, F1 {result['f1']:.2f}", flush=True)
        made = write_table(args.results_dir)
    print(made, end="")


if __name__ == "__main__":
    console.run(main)
