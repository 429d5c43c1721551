"""Training MobileBERT in full size (random weights) with effective batches of 16 windows of real lengths.

    python dev/make_random_model.py     # once
    python benchmarks/speed/training.py

Ours: train.py in a process of its own, as a user runs it, timed by its own log from step 21 on; 4 windows at once, its
default, and beside that 16. Peer: a plain PyTorch loop in fp32 with every window padded to 384, 16 at once; at its best
unpadded, with our groups of like length, and in bf16 where the processor has it. All train on the same batches, others
with every turn (the padded peer, whose steps all cost the same, on the first two). Writes training.json. Takes about 20
minutes on 2 CPU cores.
"""

import itertools
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.errors import QAError
from extractive_qa.model.folder import require_model
from extractive_qa.preprocessing.batches import epoch_batches
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features

MAX_LENGTH, DOC_STRIDE, BATCH_SIZE = 384, 128, 16
# train.py starts again in every turn, and its first steps meet most lengths for the first time, for which the CPU's
# kernels are compiled: in an epoch of thousands of steps that is nothing, so these are not counted
LOGGING_STEPS, INTERVALS = 4, 3  # steps in an interval, intervals that count
UNCOUNTED, STEPS = 20, 32  # steps before them, and in all
PADDED_STEPS = 2
TARGET = 5


def train_ours(args, micro_batch: int, seed: int, output: Path) -> float:
    """Questions per second of train.py, by its log, in the intervals that count."""
    flags = {
        "model_dir": args.model_dir, "train_file": args.train_file, "eval_file": args.train_file, "max_eval_samples": 1,
        "output_dir": output, "max_steps": STEPS, "logging_steps": LOGGING_STEPS, "seed": seed, "device": "cpu",
        "per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": BATCH_SIZE // micro_batch,
        "max_length": MAX_LENGTH, "doc_stride": DOC_STRIDE,
    }  # fmt: skip
    harness.run_script("train.py", flags, "--quiet")
    return statistics.harmonic_mean(harness.training_rates(output)[-INTERVALS:])  # each has as many windows


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, train_file=harness.TRAIN_FILE, model_dir=harness.RANDOM_ENCODER,
        micro_batch=([4, 16], "train.py's --per_device_train_batch_size; the first is compared with the peer"), pairs=5,
    )  # fmt: skip
    require_model(args.model_dir, harness.MAKE_RANDOM)
    if any(BATCH_SIZE % size for size in args.micro_batch):
        raise QAError(f"--micro_batch {args.micro_batch}: not all of them divide {BATCH_SIZE}")
    examples = harness.read_questions(args.train_file, "train")
    features = prepare_train_features(examples, load_tokenizer(args.model_dir), MAX_LENGTH, DOC_STRIDE)
    precision = harness.precisions_of("cpu")[-1]
    # the batches that train.py --seed TURN trains on in the intervals that are counted
    turns = [epoch_batches(features.lengths, BATCH_SIZE, turn, 0)[UNCOUNTED:STEPS] for turn in range(args.pairs)]
    trained = np.unique(np.concatenate([batch for turn in turns for batch in turn]))
    batches = [[np.searchsorted(trained, batch).tolist() for batch in turn] for turn in turns]

    ours = {f"train.py, {precision}, {size} windows x {BATCH_SIZE // size}": size for size in args.micro_batch}
    padded, unpadded = "plain loop, fp32, padded to 384", f"plain loop, {precision}, unpadded, grouped by length"
    sides = *ours, padded, unpadded
    ways = {padded: {"padded": True, "bf16": False}, unpadded: {"padded": False, "bf16": precision == "bf16"}}
    turn_of = {side: itertools.count() for side in sides}
    with harness.temporary_folder() as folder:
        harness.write_windows(folder / "windows.npz", features, trained, MAX_LENGTH)
        with harness.Peer("training", args.model_dir.resolve(), folder / "windows.npz", 0) as peer:

            def windows_per_second(side: str) -> float:
                turn = next(turn_of[side])
                if size := ours.get(side):
                    rate = train_ours(args, size, turn, folder / f"trained-{size}-{turn}")
                    return rate * len(features) / len(examples)
                steps = batches[turn][: PADDED_STEPS if side == padded else None]
                return sum(map(len, steps)) / peer("train", batches=steps, **ways[side])["seconds"]

            for way in ways.values():
                peer("train", batches=batches[0][:1], **way)  # warm up
            figures, others = harness.take_turns({s: lambda s=s: windows_per_second(s) for s in sides}, args.pairs)

    tokens = float(np.mean([features.lengths[batch].mean() for turn in turns for batch in turn]))
    # forward and backward cost three forward passes; padding is not counted as work done
    shares = harness.share_of_peak(figures, 3 * harness.MFLOP_PER_TOKEN * tokens)
    harness.report(
        args, figures, others, peer.versions, "training", [*ours][:1], [padded], [unpadded], "windows/s", TARGET,
        tokens_per_window={"trained on": tokens, "all questions": float(features.lengths.mean())}, **shares,
    )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
