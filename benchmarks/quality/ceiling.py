"""What is lost before any model: how well labels decode to answers, and the score of perfect logits.

    python benchmarks/quality/ceiling.py --train_file train_11877.json --eval_file dev_a.json

Labels: the share of labelled windows whose span is the answer to the letter, and what the rest are. Ceiling: logits
that are 20 at the tokens of the first reference and 0 elsewhere, decoded by postprocessing.spans, scored by metrics.
Writes ceiling.json. Takes seconds.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.metrics import compute_metrics, exact_match_score
from extractive_qa.preprocessing.windows import Features, load_tokenizer, prepare_train_features
from extractive_qa.settings import DEFAULT_SETTINGS
from utils.offline import SAMPLE_MODEL_DIR

WINDOWS = ((384, 128), (96, 32))  # max_length, doc_stride


def decode_labels(examples: list[dict], features: Features) -> tuple[dict, list[str]]:
    """How many labelled windows decode to the first answer to the letter; the others as 'answer -> span'."""
    labelled, others = np.flatnonzero(features.start_position > 0), []
    for i in labelled:
        window = features[i]
        example = examples[window["example_index"]]
        start, end = window["offsets"][window["start_position"], 0], window["offsets"][window["end_position"], 1]
        if (span := example["context"][start:end]) != (answer := example["answers"]["text"][0]):
            others.append(f"{answer} -> {span}")
    return {
        "windows": len(features), "labelled": len(labelled), "exact": len(labelled) - len(others),
        "share": 1 - len(others) / len(labelled),
        "questions_in_no_window": len(examples) - len(np.unique(features.example_index[labelled])),
    }, others  # fmt: skip


def score_perfect_logits(examples: list[dict], features: Features) -> tuple[dict, list[str]]:
    """EM and F1 of perfect logits, and the questions that are lost as 'answer -> span'."""
    batches = []
    for i in range(len(features)):
        window = features[i]
        logits = np.zeros((2, 1, len(window["input_ids"])), dtype=np.float32)  # start and end, (1, L)
        if window["start_position"]:
            logits[0, 0, window["start_position"]] = logits[1, 0, window["end_position"]] = 20.0
        batches.append((np.array([i]), *logits))
    predictions, lost = {}, []
    answers = harness.choose_answers(examples, features, DEFAULT_SETTINGS, batches)
    for example, (best,) in zip(examples, answers, strict=True):
        predictions[example["id"]] = best["text"]
        if not exact_match_score(best["text"], example["answers"]["text"]):
            lost.append(f"{example['answers']['text'][0]} -> {best['text']}")
    return compute_metrics(predictions, examples) | {"lost": len(lost)}, lost


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, model_dir=SAMPLE_MODEL_DIR, train_file=harness.TRAIN_FILE, eval_file=harness.DEV_FILE
    )
    tokenizer, found = load_tokenizer(args.model_dir), {}
    train, dev = harness.read_questions(args.train_file, "train"), harness.read_questions(args.eval_file)
    for max_length, doc_stride in WINDOWS:
        labels, others = decode_labels(train, prepare_train_features(train, tokenizer, max_length, doc_stride))
        ceiling, lost = score_perfect_logits(dev, prepare_train_features(dev, tokenizer, max_length, doc_stride))
        print(f"windows of {max_length} tokens, overlap {doc_stride}")
        print(f"  labels: {labels['exact']:,} of {labels['labelled']:,} ({labels['share']:.3%}) decode to the letter")
        print(f"  ceiling: EM {ceiling['exact_match']:.3f}, F1 {ceiling['f1']:.3f} on {len(dev):,} questions")
        for title, cases in (("labels that differ", others), ("questions lost", lost)):
            print("\n    ".join([f"  {title} ({len(cases)}), answer -> span:", *cases[:40]]))
        # counts only: the texts belong to the data set
        found[f"{max_length}/{doc_stride}"] = {"labels": labels, "ceiling": ceiling}
    harness.save(args, "ceiling", **found)


if __name__ == "__main__":
    harness.start(main)
