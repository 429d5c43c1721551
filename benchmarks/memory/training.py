"""How much memory training takes: preparing all of SQuAD's questions, and the steps of MobileBERT in full size.

    python benchmarks/memory/training.py --train_file train_11877.json           # both, ten minutes on 2 CPU cores
    python benchmarks/memory/training.py --only preparing_memory

preparing_memory  The real questions are repeated until there are 87,599 of them over (at least) 18,896 distinct
                  contexts, as in SQuAD, and prepared as train.py does it, first without and then with a cache
training_memory   train.py takes two optimizer steps: micro-batches of 1 to 16 windows of 384 tokens, fp32 and, where
                  the device has it, bf16, with and without gradient checkpointing. Random weights need as much

Each figure is of a fresh process: all that is resident in it, Python and libraries included (about 0.4 GB), or what
torch allocated on a CUDA card. Writes preparing_memory.json and training_memory.json.
"""

import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness
from harness import MB

from extractive_qa.data.examples import read_examples
from extractive_qa.model.devices import choose_device, describe, used_memory
from extractive_qa.model.memory import process_memory
from extractive_qa.preprocessing.windows import load_tokenizer
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR
from utils.preprocessing import cached_train_features

QUESTIONS = 87_599  # SQuAD 1.1, train
TARGET = 1500  # MB, of preparing
MIB = 2**20
STEPS = 2  # in the second one the optimizer's state is there
# one window of 384 tokens: [CLS] who ? [SEP], 379 times "the", [SEP]
EXAMPLE = {"question": "who?", "context": " ".join(["the"] * 379), "answers": {"text": ["the"], "answer_start": [40]}}


def measure(part: str, **settings: object) -> dict:
    train = runpy.run_path(str(PROJECT_ROOT / "train.py"), run_name="measured")  # torch and all else that it imports
    return (take_steps if part == "training_memory" else prepare)(train, **settings)


def prepare(train: dict, file: str, cache: str) -> dict:
    """Memory in MB after each stage of train.py's beginning, and the windows."""
    import transformers.modeling_utils  # noqa: F401  train.py loads it later, with the model

    parts, began = {}, time.perf_counter()

    def note(stage: str) -> None:
        nonlocal began
        memory = {"after": process_memory() / MB, "peak": process_memory(peak=True) / MB}
        parts[stage] = memory | {"seconds": time.perf_counter() - began}
        began = time.perf_counter()

    note("imports")
    examples = read_examples(file, "train")
    note("questions")
    features = cached_train_features(examples, load_tokenizer(SAMPLE_MODEL_DIR), 384, 128, Path(cache))
    note("windows")
    arrays = [getattr(features, name) for name in features.__dataclass_fields__ if name != "template"]
    return {
        "questions": len(examples), "contexts": len({example["context"] for example in examples}),
        "windows": len(features), "features_mb": sum(array.nbytes for array in arrays) / MB, "parts": parts,
    }  # fmt: skip


def take_steps(train: dict, batch: int, precision: str, checkpointing: bool, model_dir: str, device: str) -> dict:
    """The peak in MiB of train.py, which runs in this process, with micro-batches of `batch` windows."""
    with harness.temporary_folder() as folder:
        file = harness.write_squad(folder / "train.json", (EXAMPLE | {"id": str(i)} for i in range(STEPS * batch)))
        flags = {
            "model_dir": model_dir, "device": device, "mixed_precision": harness.FLAGS[precision], "max_length": 384,
            "train_file": file, "eval_file": file, "max_eval_samples": 1, "output_dir": folder / "output",
            "max_steps": STEPS, "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1,
        }  # fmt: skip
        words = ["--quiet", *(["--gradient_checkpointing"] if checkpointing else [])]
        train["main"](train["read_settings"]([*harness.words_of(flags), *words]))
    device = choose_device(device)
    case = {"batch": batch, "precision": precision, "checkpointing": checkpointing}
    kind = "allocated on the card" if device.type == "cuda" else "resident in the process"
    return case | {"peak": used_memory(device, peak=True) / MIB, "device": describe(device), "kind": kind}


def measure_preparing(args, folder: Path) -> None:
    examples = harness.read_questions(args.train_file, "train")
    file = harness.write_squad(folder / "train.json", harness.repeat_questions(examples, args.questions))
    settings = {"part": "preparing_memory", "file": file, "cache": folder / "cache"}
    runs = {name: harness.in_fresh_process(__file__, **settings) for name in ("prepared", "from the cache")}
    peaks = {name: max(part["peak"] for part in run["parts"].values()) for name, run in runs.items()}
    harness.print_table(
        ["resident memory in MB after", "imports", "questions", "windows", "peak"],
        [[n, *(f"{p['after']:,.0f}" for p in run["parts"].values()), f"{peaks[n]:,.0f}"] for n, run in runs.items()],
    )
    peak = peaks["prepared"]
    harness.save(args, "preparing_memory", unit="MB", peak=peak, target=TARGET, met=peak < TARGET, runs=runs)


def measure_steps(args, folder: Path) -> None:
    given = {"part": "training_memory", "model_dir": args.model_dir, "device": args.device}
    rows = [
        harness.in_fresh_process(__file__, batch=batch, precision=precision, checkpointing=checkpointing, **given)
        for batch in args.batches
        for precision in harness.precisions_of(choose_device(args.device).type)
        for checkpointing in (False, True)
    ]
    kind, device, columns = rows[0]["kind"], rows[0]["device"], ("batch", "precision", "checkpointing")
    print(f"peak memory in MiB, {kind}; {device}; windows of 384 tokens")
    harness.print_table([*columns, "peak"], [[*(row[c] for c in columns), f"{row['peak']:,.0f}"] for row in rows])
    harness.save(args, "training_memory", unit="MiB", kind=kind, rows=rows, device=device)


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, train_file=harness.TRAIN_FILE, model_dir=harness.RANDOM_ENCODER, device="auto", only="",
        questions=(QUESTIONS, "how many are prepared"), batches=([1, 4, 8, 16], "windows in a micro-batch"),
    )  # fmt: skip
    harness.run_parts(args, {"preparing_memory": measure_preparing, "training_memory": measure_steps})


if __name__ == "__main__":
    harness.start(main, measure)
