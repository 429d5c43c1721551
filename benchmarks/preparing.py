"""Preparing training questions: windows and labels, cold, the written file included.

    python benchmarks/preparing.py

Ours: extractive_qa.preprocessing.windows and utils.preprocessing. Peer: the usual `datasets.map` with the fast tokenizer's overflow and a
Python loop for the labels, one process, padded to 384; at its best without padding. Both begin with questions that are
read and a tokenizer that is loaded, and end with a file on disk; the windows and labels of both are compared. Writes
benchmarks/results/preparing.json. Takes about 2 minutes on 2 CPU cores.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from pairs import TRAIN_FILE, Peer, arguments, cpu, own_versions, report, seconds_of, summarize, take_turns

from extractive_qa.data.examples import read_examples
from extractive_qa.preprocessing.windows import Features, load_tokenizer, prepare_train_features
from utils import console
from utils.offline import SAMPLE_MODEL_DIR
from utils.preprocessing import save_features

MAX_LENGTH, DOC_STRIDE = 384, 128
TARGET = 5


def prepare(examples: list[dict], tokenizer, path: Path) -> Features:
    """Windows and labels of `examples`, written to `path` as a training keeps them."""
    features = prepare_train_features(examples, tokenizer, MAX_LENGTH, DOC_STRIDE)
    save_features(path, features)
    return features


def differing(features: Features, theirs: dict) -> dict:
    """How many windows differ from the peer's in their ids, and how many in their labels."""
    same_count = len(features) == len(theirs["lengths"])
    splits = np.concatenate([[0], np.cumsum(theirs["lengths"])])
    ids = labels = 0
    for i in range(len(features) if same_count else 0):
        window = features[i]
        ids += not np.array_equal(window["input_ids"], theirs["ids"][splits[i] : splits[i + 1]])
        found = (window["start_position"], window["end_position"])
        labels += found != (theirs["start_positions"][i], theirs["end_positions"][i])
    return {"windows": len(features), "peer_windows": len(theirs["lengths"]), "ids": ids, "labels": labels}


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "preparing")
    parser.add_argument("--train_file", type=Path, default=TRAIN_FILE, help="questions with answers")
    parser.add_argument("--max_samples", type=int, default=11_877, help="use only so many questions")
    parser.add_argument("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="a folder with the tokenizer")
    args = parser.parse_args(argv)

    examples = read_examples(args.train_file, "train")[: args.max_samples]
    tokenizer = load_tokenizer(args.model_dir)
    with tempfile.TemporaryDirectory() as folder:
        questions = Path(folder) / "questions.jsonl"
        with questions.open("w", encoding="utf-8") as lines:
            for example in examples:
                fields = {name: example[name] for name in ("question", "context", "answers")}
                lines.write(json.dumps(fields) + "\n")
        with Peer("preparing", args.model_dir.resolve(), questions, folder) as peer:
            sides = {
                "extractive_qa.preprocessing.windows": lambda: (
                    len(examples) / seconds_of(lambda: prepare(examples, tokenizer, Path(folder) / "train.features"))
                ),
                "datasets.map, padded to 384": lambda: len(examples) / peer("prepare", padded=True)["seconds"],
                "datasets.map, unpadded": lambda: len(examples) / peer("prepare", padded=False)["seconds"],
            }
            # warm up on a little, as nothing of it is kept
            prepare(examples[:1000], tokenizer, Path(folder) / "train.features")
            peer("prepare", padded=True, count=min(1000, len(examples)))
            figures, others = take_turns(sides, args.pairs, args.patience)
            compared = Path(folder) / "compared.npz"
            peer("save", path=str(compared))
            with np.load(compared) as theirs:
                features = prepare(examples, tokenizer, Path(folder) / "train.features")
                different = differing(features, dict(theirs))
            versions = {"ours": own_versions(), "peer": peer.versions}
            written = (Path(folder) / "train.features").stat().st_size
    ours, padded, unpadded = figures
    print(f"compared with the peer's: {different}")
    result = summarize(
        "preparing", figures, [ours], [padded], [unpadded], "questions/s", TARGET, cpu(), versions,
        questions=len(examples), differing=different, written_mb=written / 2**20, others=others,
    )  # fmt: skip
    report(result, figures, args.results_dir / "preparing.json")


if __name__ == "__main__":
    console.run(main)
