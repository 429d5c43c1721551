"""How should the windows of a long context compete for the answer? EM and F1 of three rules on joined paragraphs.

    python benchmarks/long_contexts.py --eval_file ../shared/squad/dev_a.json

Every question is asked of its own paragraph, of 8 paragraphs of its article, and of the whole article (--paragraphs).
Rules:

raw      a span's score is its start logit plus its end logit, whatever the window
cls      the same less the window's score of [CLS], where training points when the answer is in another window; this is
         what extractive_qa.reader does
softmax  start and end logits each normalized over their own window first, as they are in training

Writes benchmarks/results/long_contexts.json. Takes about 10 minutes on 2 CPU cores.
"""

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR, go_offline

go_offline()

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.reading import make_room
from extractive_qa.metrics import compute_metrics
from extractive_qa.postprocessing.spans import relative_to_cls
from extractive_qa.reader import Reader
from extractive_qa.training.augmentation import among_neighbours
from utils import console

RULES = ("raw", "cls", "softmax")


class RuleReader(Reader):
    """A reader whose logits follow one of the RULES; the model runs once for all of them."""

    rule = "raw"

    def forget(self) -> None:
        self.known = {}

    def logits(self, features, windows):
        key = tuple(windows)
        if key not in self.known:
            self.known[key] = super().logits(features, windows)
        return self.known[key]

    def comparable(self, logits, rows):
        if self.rule == "cls":
            return relative_to_cls(logits)
        if self.rule == "softmax":
            lengths = np.array([len(row["input_ids"]) for row in rows])
            real = np.where(np.arange(logits.shape[1]) < lengths[:, None], logits, -np.inf)
            highest = real.max(axis=1, keepdims=True)
            return logits - highest - np.log(np.exp(real - highest).sum(axis=1, keepdims=True))
        return logits


def articles_of(path: Path) -> list[list[str]]:
    """The contexts of each article of a SQuAD file."""
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [[paragraph["context"] for paragraph in article["paragraphs"]] for article in articles]


def join(example: dict, paragraphs: list[str], count: int) -> dict:
    """The example with its context among `count` neighbouring paragraphs of its article, 0: all of them."""
    count = min(count or len(paragraphs), len(paragraphs))
    return among_neighbours(example, paragraphs, paragraphs.index(example["context"]) - count // 2, count)[0]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="a trained model")
    parser.add_argument("--eval_file", type=Path, default=SAMPLE_DATA_DIR / "dev.json", help="SQuAD's nested JSON")
    parser.add_argument("--max_samples", type=int, default=200, help="questions, drawn with a fixed seed")
    parser.add_argument("--paragraphs", type=int, nargs="+", default=[1, 8, 0], help="of the article; 0: all of it")
    parser.add_argument("--output", type=Path, default=PROJECT_ROOT / "benchmarks" / "results" / "long_contexts.json")
    args = parser.parse_args(argv)
    if min(args.paragraphs) < 0:
        raise QAError(f"--paragraphs {min(args.paragraphs)}, expected 1 or more, or 0 for all")
    make_room(args.output, "--output")

    reader = RuleReader(args.model_dir, batch_size=32, backend="torch")
    examples = read_examples(args.eval_file)
    examples = random.Random(0).sample(examples, min(args.max_samples, len(examples)))
    article_of = {context: article for article in articles_of(args.eval_file) for context in article}
    results = {}
    for count in args.paragraphs:
        predictions = {rule: {} for rule in RULES}
        for example in tqdm(examples, f"{count or 'all'} paragraphs"):
            joined = join(example, article_of[example["context"]], count)
            reader.forget()
            for rule in RULES:
                reader.rule = rule
                predictions[rule][example["id"]] = reader.answer(joined["question"], joined["context"])["text"]
        results[str(count or "all")] = {rule: compute_metrics(predictions[rule], examples) for rule in RULES}

    print(f"{len(examples)} questions\n{'paragraphs':>10}" + "".join(f"{rule:>18}" for rule in RULES))
    for count, scores in results.items():
        print(f"{count:>10}" + "".join(f"{scores[r]['exact_match']:>10.2f}/{scores[r]['f1']:.2f}" for r in RULES))
    line = {
        "benchmark": "long_contexts",
        "questions": len(examples),
        "results": results,
        "device": reader.backend.describe(),
        "mixed_precision": reader.backend.precision,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
