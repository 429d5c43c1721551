"""Scores a trained model by exact match and F1, offline."""

from utils.offline import OUTPUT_DIR, SQUAD_DIR, go_offline

go_offline()

import argparse
import json
from pathlib import Path

from utils import console
from utils.metrics import compute_metrics
from utils.reader import Reader
from utils.squad import read_examples


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_dir", type=Path, default=OUTPUT_DIR / "final_model")
    parser.add_argument("--eval_file", type=Path, default=SQUAD_DIR)
    args = parser.parse_args(argv)
    examples = read_examples(args.eval_file, "validation")
    answers = Reader(args.model_dir).answer_all(examples)
    predictions = {e["id"]: a[0]["text"] for e, a in zip(examples, answers, strict=True)}
    print(json.dumps(compute_metrics(predictions, examples)))


if __name__ == "__main__":
    console.run(main)
