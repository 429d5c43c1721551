"""What is lost before any model: how well labels decode to answers, and the score of perfect logits.

    python benchmarks/ceiling.py --train_file ../shared/squad/train_11877.json --eval_file ../shared/squad/dev_a.json

Labels: the share of labelled windows whose span is the answer to the letter, and what the rest are. Ceiling: logits
that are 20 at the tokens of the first reference and 0 elsewhere, decoded by extractive_qa.postprocessing.spans, scored by extractive_qa.metrics.
Writes benchmarks/results/ceiling.json. Takes seconds.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR, go_offline

go_offline()

import numpy as np

from extractive_qa.data.examples import read_examples
from extractive_qa.files.reading import make_room
from extractive_qa.metrics import compute_metrics, exact_match_score
from extractive_qa.postprocessing.answers import AnswerCollector
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features
from extractive_qa.settings import DEFAULT_SETTINGS
from utils import console

WINDOWS = ((384, 128), (96, 32))
SHOWN = 40


def labels(examples: list[dict], features) -> dict:
    """How many labelled windows decode to the first answer to the letter; the others as 'answer -> span'."""
    labelled, others = 0, []
    for i in np.flatnonzero(features.start_position > 0):
        window = features[i]
        example = examples[window["example_index"]]
        start, end = window["offsets"][window["start_position"], 0], window["offsets"][window["end_position"], 1]
        labelled += 1
        if (span := example["context"][start:end]) != (answer := example["answers"]["text"][0]):
            others.append(f"{answer} -> {span}")
    unlabelled = len(examples) - len(set(features.example_index[features.start_position > 0].tolist()))
    return {
        "windows": len(features),
        "labelled": labelled,
        "exact": labelled - len(others),
        "share": 1 - len(others) / labelled,
        "questions_in_no_window": unlabelled,
        "others": others,
    }


def ceiling(examples: list[dict], features) -> dict:
    """EM and F1 of perfect logits, and the questions that are lost with the reason."""
    choice = AnswerCollector(features, DEFAULT_SETTINGS)
    for i in range(len(features)):
        window = features[i]
        logits = np.zeros((2, 1, len(window["input_ids"])), dtype=np.float32)
        if window["start_position"]:
            logits[0, 0, window["start_position"]] = logits[1, 0, window["end_position"]] = 20.0
        choice.add(np.array([i]), *logits)
    predictions, lost = {}, []
    answers = choice.answers([example["context"] for example in examples])
    for example, (answer,) in zip(examples, answers, strict=True):
        predictions[example["id"]] = answer["text"]
        if not exact_match_score(predictions[example["id"]], example["answers"]["text"]):
            lost.append(f"{example['answers']['text'][0]} -> {predictions[example['id']]}")
    return compute_metrics(predictions, examples) | {"lost": lost}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    add = parser.add_argument
    add("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="a folder with the tokenizer")
    add("--train_file", type=Path, default=SAMPLE_DATA_DIR / "train.json", help="questions whose labels are decoded")
    add("--eval_file", type=Path, default=SAMPLE_DATA_DIR / "dev.json", help="questions for the ceiling")
    add("--output", type=Path, default=PROJECT_ROOT / "benchmarks" / "results" / "ceiling.json", help="result file")
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    tokenizer = load_tokenizer(args.model_dir)
    line = {"benchmark": "ceiling"}
    for max_length, doc_stride in WINDOWS:
        train, dev = read_examples(args.train_file), read_examples(args.eval_file)
        found = labels(train, prepare_train_features(train, tokenizer, max_length, doc_stride))
        best = ceiling(dev, prepare_train_features(dev, tokenizer, max_length, doc_stride))
        others, lost = found.pop("others"), best.pop("lost")
        print(f"windows of {max_length} tokens, overlap {doc_stride}")
        print(f"  labels: {found['exact']:,} of {found['labelled']:,} ({found['share']:.3%}) decode to the letter")
        print(f"  ceiling: EM {best['exact_match']:.3f}, F1 {best['f1']:.3f} on {best['total']:,} questions")
        for title, cases in (("labels that differ", others), ("questions lost", lost)):
            print(f"  {title} ({len(cases)}), answer -> span:")
            print("".join(f"    {case}\n" for case in cases[:SHOWN]), end="")
        # counts only: the texts belong to the data set
        line[f"{max_length}/{doc_stride}"] = {"labels": found, "ceiling": best | {"lost": len(lost)}}
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
