"""How much memory preparing all of SQuAD's training questions takes, with all that train.py has loaded by then.

    python benchmarks/preparing_memory.py --train_file ../shared/squad/train_11877.json

The real questions are repeated until there are 87,599 of them over (at least) 18,896 distinct contexts, as in SQuAD's
whole training set: every repetition puts a number before its contexts, so none is tokenized once for two. They are
read from a file and prepared as train.py does it, in a fresh process, first without and then with a cache. Figures
are resident memory. Writes benchmarks/results/preparing_memory.json. Takes half a minute.
"""

import argparse
import json
import runpy
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR, go_offline

go_offline()

from fresh import in_fresh_process, repeat, write_squad
from pairs import RESULTS_DIR, TRAIN_FILE, cpu, own_versions

from extractive_qa.files.reading import make_room
from utils import console

QUESTIONS, CONTEXTS = 87_599, 18_896  # SQuAD 1.1, train
TARGET = 1500  # MB
MB = 1e6


def measure(file: str, model_dir: str, cache: str) -> dict:
    """Memory in MB after each stage of train.py's beginning, and the windows."""
    runpy.run_path(str(PROJECT_ROOT / "train.py"), run_name="imported")  # torch, accelerate and all else it imports
    import torch
    import transformers.modeling_utils  # noqa: F401  train.py loads it later, with the model

    from extractive_qa.data.examples import read_examples
    from extractive_qa.model.devices import used_memory
    from extractive_qa.preprocessing.windows import load_tokenizer
    from utils.preprocessing import cached_train_features

    parts, device = {}, torch.device("cpu")

    def note(stage: str, began: float) -> None:
        used, peak = used_memory(device) / MB, used_memory(device, peak=True) / MB
        parts[stage] = {"after": used, "peak": peak, "seconds": time.perf_counter() - began}

    note("imports", time.perf_counter())
    began = time.perf_counter()
    examples = read_examples(file, "train")
    note("questions", began)
    began = time.perf_counter()
    features = cached_train_features(examples, load_tokenizer(model_dir), 384, 128, Path(cache))
    note("windows", began)
    arrays = [getattr(features, name) for name in features.__dataclass_fields__ if name != "template"]
    return {
        "questions": len(examples),
        "contexts": len({example["context"] for example in examples}),
        "windows": len(features),
        "features_mb": sum(array.nbytes for array in arrays) / MB,
        "parts": parts,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--train_file", type=Path, default=TRAIN_FILE, help="real questions to repeat")
    parser.add_argument("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="a folder with the tokenizer")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "preparing_memory.json", help="result file")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    if args.part:
        print(json.dumps(measure(**args.part)))
        return

    from extractive_qa.data.examples import read_examples

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train.json")
        write_squad(file, repeat(read_examples(args.train_file), QUESTIONS))
        settings = {"file": str(file), "model_dir": str(args.model_dir), "cache": str(Path(folder, "cache"))}
        runs = {name: in_fresh_process(__file__, **settings) for name in ("prepared", "from the cache")}

    found = runs["prepared"]
    assert (found["questions"], found["contexts"] >= CONTEXTS) == (QUESTIONS, True), found
    print(f"{found['questions']:,} questions, {found['contexts']:,} distinct contexts, {found['windows']:,} windows")
    print(f"{'resident memory in MB after':>30} {'imports':>9} {'questions':>10} {'windows':>9} {'peak':>9}")
    for name, run in runs.items():
        after = [stage["after"] for stage in run["parts"].values()]
        print(f"{name:>30} {after[0]:>9,.0f} {after[1]:>10,.0f} {after[2]:>9,.0f} {peak_of(run):>9,.0f}")
    line = {
        "benchmark": "preparing_memory",
        "unit": "MB",
        "peak": peak_of(found),
        "target": TARGET,
        "met": peak_of(found) < TARGET,
        "runs": runs,
        "device": cpu(),
        "versions": own_versions(),
    }
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


def peak_of(run: dict) -> float:
    return max(stage["peak"] for stage in run["parts"].values())


if __name__ == "__main__":
    console.run(main)
