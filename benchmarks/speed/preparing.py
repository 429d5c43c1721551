"""Preparing training questions: windows and labels, without a cache, the written file included.

    python benchmarks/speed/preparing.py

Ours: preprocessing.windows, utils.preprocessing. Peer: the common `datasets.map` with the fast tokenizer's overflow, a
Python loop for the labels, one process, padded to 384; at its best without padding. Both begin with questions that are
read and a tokenizer that is loaded, and end with a file on disk. Writes preparing.json. Takes about 2 minutes on 2 CPU
cores. That the windows are the same is tested: tests/preprocessing/test_windows.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.preprocessing.features_file import save_features
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features
from utils.offline import SAMPLE_MODEL_DIR

MAX_LENGTH, DOC_STRIDE = 384, 128
TARGET = 5


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, train_file=harness.TRAIN_FILE, max_samples=11_877, model_dir=SAMPLE_MODEL_DIR, pairs=5
    )
    examples = harness.read_questions(args.train_file, "train", args.max_samples)
    tokenizer = load_tokenizer(args.model_dir)
    with harness.temporary_folder() as folder:
        questions = harness.write_lines(folder / "questions.jsonl", examples, "question", "context", "answers")

        def prepare(count: int | None = None) -> None:
            features = prepare_train_features(examples[:count], tokenizer, MAX_LENGTH, DOC_STRIDE)
            save_features(folder / "train.features", features, kept=1)

        with harness.Peer("preparing", args.model_dir.resolve(), questions, folder) as peer:
            ours, padded, unpadded = (
                "extractive_qa.preprocessing.windows",
                "datasets.map, padded to 384",
                "datasets.map, unpadded",
            )
            sides = {
                ours: lambda: len(examples) / harness.seconds_of(prepare),
                padded: lambda: len(examples) / peer("prepare", padded=True)["seconds"],
                unpadded: lambda: len(examples) / peer("prepare", padded=False)["seconds"],
            }
            # warm up on a little, as nothing of it is kept
            prepare(1000)
            peer("prepare", padded=True, count=min(1000, len(examples)))
            figures, others = harness.take_turns(sides, args.pairs)
        written_mb = (folder / "train.features").stat().st_size / 2**20
    harness.report(
        args, figures, others, peer.versions, "preparing", [ours], [padded], [unpadded], "questions/s", TARGET,
        questions=len(examples), written_mb=written_mb,
    )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
