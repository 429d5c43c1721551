"""Which way of training gives the best answers? Recipes compared on articles that none of them was trained on.

    python benchmarks/quality/recipes.py --model_dir <MiniLM folder> --larger_model_dir <MPNet folder>
    python benchmarks/quality/recipes.py --model_dir <MiniLM folder> --final --runs "plain 1" "plain 2"
    python benchmarks/quality/recipes.py --runs "reader, all layers 1" "reader, four layers 1" --questions 3400
    python benchmarks/quality/recipes.py --table     # only the table in docs/EXPERIMENTS.md

A run is a recipe with a seed: train.py on the articles of --train_file but 6, drawn with a fixed seed. evaluate.py
scores the state after the last step on those 6, and on 500 of their questions asked of 8 paragraphs, passages.py on 300
of them asked of the best paragraphs by BM25; no epoch is chosen by its score. A recipe's teachers are other runs, made
first where they are missing. --final trains on all of --train_file and scores --eval_file, by which nothing was chosen;
its larger teacher has learned from the articles of the split. Without --larger_model_dir the larger one's answers that
lie beside its result serve in its place.

The recipes of a reader go on from --reader_dir, and it teaches them, what it was with all its layers. models/sample has
learned from the held-out articles, and these flatter it and all that come from it: between such runs they may choose,
what is lost shows --final, or a reader of the split (output/recipes/third_1/checkpoint-N).

Runs are done one after another, in output/recipes; on one CPU core each takes from half an hour to hours. What was
stopped (Ctrl-C) is resumed, and what has a result in --results_dir is not done again.
"""

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.reading import read_json
from extractive_qa.training.checkpoints import list_checkpoints, read_state
from utils.console import note
from utils.offline import OUTPUT_DIR, PROJECT_ROOT, SAMPLE_MODEL_DIR

HELD_OUT, SPLIT_SEED = 6, 0  # articles, and what draws them
LONG_QUESTIONS, PARAGRAPHS = 500, 8  # asked of so many paragraphs of their article
COMMON = {
    "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "max_eval_samples": 100, "save_total_limit": 1,
}  # fmt: skip
NOT_SHOWN = {*COMMON, "seed", "per_device_eval_batch_size"}  # flags that the table does not repeat
LONGER = {"num_train_epochs": 3, "learning_rate": 2e-4}
THIRD = LONGER | {"teachers": ["larger 1"], "max_train_samples": 3400}
READER = {"num_train_epochs": 3, "learning_rate": 1e-4, "max_train_samples": 3400}
BOTH = ("model_dir", "teacher_dir")  # what the reader serves as
FEW = {"num_train_epochs": 6, "learning_rate": 1e-4, "max_train_samples": 300}
# train.py's flags; under "teachers" the runs to learn from, under "reader" what --reader_dir serves as
RECIPES = {
    "plain": {"num_train_epochs": 2, "learning_rate": 1e-4},
    "longer": LONGER,
    # of --larger_model_dir, a larger encoder than all the others start from
    "larger": {"num_train_epochs": 1, "learning_rate": 5e-5, "larger": True},
    "taught by larger": LONGER | {"teachers": ["larger 1"]},
    "taught by larger, as it answers": LONGER
    | {"teachers": ["larger 1"], "distillation_weight": 0.9, "distillation_temperature": 1},
    # less to learn from, in less time: what was given up was measured beside it
    "third": THIRD,
    "third, joined with neighbours": THIRD | {"joined_contexts": 0.3},
    # asked of paragraphs without the answer too. "own paragraphs" is `third`, whose results are older than passages.py
    "third, own paragraphs": THIRD,
    "third, negatives": THIRD | {"negative_contexts": 1},
    "third, half as many negatives": THIRD | {"negative_contexts": 0.5},
    "third, twice as many negatives": THIRD | {"negative_contexts": 2},
    "third, negatives and joined": THIRD | {"negative_contexts": 1, "joined_contexts": 0.3},
    # as few as somebody has who wrote them, and no teacher
    "few": FEW,
    "few, as many steps": FEW | {"num_train_epochs": 17},  # as 6 epochs and a stage on raw text before them
    # fewer layers of a reader, and as many steps with all of them
    "reader, all layers": READER | {"reader": BOTH},
    "reader, four layers": READER | {"reader": BOTH, "keep_layers": "4"},
    "reader, four layers spread": READER | {"reader": BOTH, "keep_layers": "0,2,3,5"},
    "reader, four layers, untaught": READER | {"reader": BOTH[:1], "keep_layers": "4"},
}
QUEUE = [f"{recipe} {seed}" for seed in (1, 2, 3) for recipe in RECIPES]


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


@dataclass
class Runs:
    """The runs of one model on one pair of files: to train on and to score. larger: where the runs of the larger model
    are done, if not here."""

    model_dir: Path
    larger_model_dir: Path | None
    files: tuple[Path, Path]
    results_dir: Path
    output_dir: Path
    larger: "Runs | None" = None
    reader_dir: Path = SAMPLE_MODEL_DIR
    questions: int | None = None  # to learn from, where it is not as many as the recipe says

    def folder(self, run: str) -> Path:
        name = run.replace(",", "").replace(" ", "_")
        return self.output_dir / (f"{name}_of_{self.questions}" if self.questions else name)

    def result(self, run: str) -> Path:
        return self.results_dir / f"{self.folder(run).name}.json"

    def do(self, run: str) -> dict:
        """The result of a run, which is trained and scored where that was not done yet."""
        if not self.result(run).exists():
            recipe, _, seed = run.rpartition(" ")
            flags = COMMON | {"seed": int(seed)} | RECIPES[recipe]
            flags |= {"max_train_samples": self.questions} if self.questions else {}
            teachers, reader = flags.pop("teachers", []), flags.pop("reader", ())
            encoder = self.larger_model_dir if flags.pop("larger", False) else self.model_dir
            if reader:
                encoder = self.reader_dir
            if encoder is None:
                raise QAError(f"{run} needs --larger_model_dir, the folder of a larger encoder. See --help")
            folders = [self.last_state(teacher) for teacher in teachers]
            if "teacher_dir" in reader:
                teachers, folders = ["the reader"], [self.reader_dir]
            note(f"run: {run}")
            self.train(self.folder(run), encoder, flags, folders)
            result = self.collect(self.folder(run), recipe, flags, teachers)
            self.result(run).parent.mkdir(parents=True, exist_ok=True)
            self.result(run).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return read_json(self.result(run), "the result of a run")

    def last_state(self, run: str) -> Path:
        """The folder of a run's last state. It is run again where there is only its result, from another machine maybe;
        but of the larger model's a file of its answers does."""
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
            harness.run_script("train.py", {"output_dir": folder}, "--resume")
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "commit.txt").write_text(commit(), encoding="utf-8")
        files = {"model_dir": encoder, "output_dir": folder, "train_file": self.files[0], "eval_file": self.files[1]}
        words = ["--teacher_dir", *teachers] if teachers else []
        harness.run_script("train.py", files | flags, "--overwrite_output_dir", *words)

    def collect(self, folder: Path, recipe: str, flags: dict, teachers: list[str]) -> dict:
        """What a finished run showed: the scores of its last state, and from its log how fast it was."""
        last = list_checkpoints(folder)[-1]
        state = read_state(last)
        questions = len(read_examples(self.files[0], "train")[: flags.get("max_train_samples")])
        dev = read_examples(self.files[1])
        some = random.Random(SPLIT_SEED).sample(dev, min(LONG_QUESTIONS, len(dev)))
        joined = harness.ask_of_neighbours(some, self.files[1], PARAGRAPHS)
        (folder / "long.json").write_text(json.dumps(joined), encoding="utf-8")
        return {
            "recipe": recipe, "seed": flags["seed"], "flags": flags, "teachers": teachers,
            **score(last, self.files[1], folder / "scores"),
            "long_contexts": score(last, folder / "long.json", folder / "long_scores"),
            "passages": passages(last, self.files[1], folder),
            "questions": questions, "windows": state["windows"],
            "windows_per_second": statistics.median(harness.training_rates(folder)) * state["windows"] / questions,
            "mixed_precision": state["precision"], "commit": (folder / "commit.txt").read_text("utf-8"),
            "device": harness.describe_cpu(), "versions": harness.versions(),
        }  # fmt: skip


def score(model_dir: Path, eval_file: Path, folder: Path) -> dict:
    """exact_match, f1 and total of a model on a file. What evaluate.py writes stays in `folder`."""
    harness.run_script("evaluate.py", {"model_dir": model_dir, "eval_file": eval_file, "output_dir": folder})
    scores = read_json(folder / "metrics.json", "scores")
    return {name: scores[name] for name in ("exact_match", "f1", "total")}


def passages(model_dir: Path, eval_file: Path, folder: Path) -> dict:
    """What passages.py finds, which stays in `folder` too."""
    flags = {"model_dir": model_dir, "eval_file": eval_file, "results_dir": folder, "joined": 0}
    harness.run_script("benchmarks/quality/passages.py", flags)
    found = read_json(folder / "passages.json", "scores")
    return {name: found[name] for name in ("questions", "own", "recall", "passages", "auroc")}


def commit() -> str:
    """The revision of the sources, with a + where they differ from it."""
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    return subprocess.check_output(command, text=True).strip()


def table(results: list[dict]) -> str:
    """The table in Markdown: a line a recipe, each compared with the first of those that began alike and learned from
    as many questions, seed by seed where both have the seed. In the order of RECIPES, and after them those that were
    given up: train.py has lost their flags since."""
    heads = (
        "recipe", "settings", "runs", "EM", "F1", "F1, spread", "F1 against the first",
        f"F1 of {PARAGRAPHS} paragraphs", "that against the first", "F1 of 5 passages", "AUROC", "F1, weights averaged",
    )  # fmt: skip
    order = list(RECIPES)
    results = sorted(results, key=lambda run: order.index(run["recipe"]) if run["recipe"] in order else len(order))
    tables = {}  # by what they began with, and the questions learned from
    for run in results:
        alike = RECIPES.get(run["recipe"], {}).get("reader") is not None, run["flags"].get("max_train_samples")
        tables.setdefault(alike, {}).setdefault(run["recipe"], []).append(run)
    made = []
    for recipes in tables.values():
        first, rows = next(iter(recipes.values())), []
        for recipe, runs in recipes.items():
            f1, long, averaged = (f1_by_seed(runs, part) for part in ("", "long_contexts", "averaged"))
            rows.append([
                recipe, settings(runs[0]), str(len(runs)), f"{statistics.mean(run['exact_match'] for run in runs):.2f}",
                mean(f1), spread(f1.values(), ".2f"), gain(f1, f1_by_seed(first)),
                mean(long), gain(long, f1_by_seed(first, "long_contexts")),
                mean(passages_by_seed(runs, "passages", "5", "cls")),
                mean(passages_by_seed(runs, "auroc", "any"), ".3f"), mean(averaged),
            ])  # fmt: skip
        filled = [[head, "---", *cells] for head, *cells in zip(heads, *rows, strict=True) if any(cells)]
        made.append("".join(f"| {' | '.join(row)} |\n" for row in zip(*filled, strict=True)))
    return "\n".join(made)


def f1_by_seed(runs: list[dict], part: str = "") -> dict[int, float]:
    """F1 of the runs that have it, or of one of their other scores."""
    return {run["flags"]["seed"]: (run[part] if part else run)["f1"] for run in runs if not part or part in run}


def passages_by_seed(runs: list[dict], *names: str) -> dict[int, float]:
    """A figure of passages.py, by its path, of the runs that have it."""
    found = {run["flags"]["seed"]: run["passages"] for run in runs if "passages" in run}
    for name in names:
        found = {seed: part[name] for seed, part in found.items()}
    return found


def mean(by_seed: dict[int, float], form: str = ".2f") -> str:
    return f"{statistics.mean(by_seed.values()):{form}}" if by_seed else ""


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
    values = {name: v if isinstance(v, str) else f"{v:g}" for name, v in run["flags"].items() if name not in NOT_SHOWN}
    shown = [f"`--{name} {value}`" for name, value in values.items()]
    if spans := run.get("spans"):  # a stage on raw text, given up
        shown.append(f"{spans['num_train_epochs']} epoch of recurring spans before")
    return ", ".join(shown + [f"teacher: {teacher}" for teacher in run["teachers"]])


def write_table(results_dir: Path) -> str:
    """Puts the table of the results at hand into docs/EXPERIMENTS.md, and one of the final runs below it where there
    are any. Returns both."""
    folders = results_dir, results_dir / "final"
    held_out, final = ([read_json(path, "a result") for path in sorted(f.glob("*.json"))] for f in folders)
    made = table(held_out)
    if final:
        made += f"\nTrained on all articles, scored on the dev questions:\n\n{table(final)}"
    harness.put_table(PROJECT_ROOT / "docs" / "EXPERIMENTS.md", "recipes", made)
    return made


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, model_dir=(None, "the encoder to start from"),
        larger_model_dir=(None, "the encoder of the recipe `larger`, a teacher"),
        train_file=(harness.TRAIN_FILE, "SQuAD JSON whose articles are split"),
        eval_file=(harness.DEV_FILE, "what --final scores"), runs=(QUEUE, "recipes, each with a seed"),
        reader_dir=(SAMPLE_MODEL_DIR, "the reader that the recipes of one go on from"),
        questions=(0, "learn from so many (0: as many as each recipe says)"),
        final=(False, "train on all articles and score --eval_file"), table=(False, "run nothing"),
        output_dir=(OUTPUT_DIR / "recipes", "trainings, and the two files of the split"),
        results_dir=(harness.RESULTS_DIR / "recipes", "a JSON file a run"),
    )  # fmt: skip
    if args.table:
        print(write_table(args.results_dir), end="")
        return
    for recipe, _, seed in (run.rpartition(" ") for run in args.runs):
        if recipe not in RECIPES or not seed.isdecimal():
            raise QAError(f"--runs {recipe} {seed}: no recipe and seed. Recipes: {'; '.join(RECIPES)}")
    if args.model_dir is None and any("reader" not in RECIPES[run.rpartition(" ")[0]] for run in args.runs):
        raise QAError("--model_dir is missing. Expected the folder of an encoder. See --help")
    encoders = args.model_dir, args.larger_model_dir
    more = {"reader_dir": args.reader_dir, "questions": args.questions or None}
    runs = Runs(*encoders, split(args.train_file, args.output_dir), args.results_dir, args.output_dir, **more)
    if args.final:
        places = args.results_dir / "final", args.output_dir / "final"
        runs = Runs(*encoders, (args.train_file, args.eval_file), *places, larger=runs, **more)
    for run in args.runs:
        result = runs.do(run)
        print(f"{write_table(args.results_dir)}\n{json.dumps(result)}")


if __name__ == "__main__":
    harness.start(main)
