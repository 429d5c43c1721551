"""Our side of benchmarks/latency.py: extractive_qa.reader in a process of its own, as in a user's program. Beside other
backends, loaded in one process, its threads and theirs would wait for each other. Run by latency.py."""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "peers"), str(Path(__file__).resolve().parents[1])]
from worker import serve

from extractive_qa.reader import Reader

model_dir, backend, precision = sys.argv[1:]
reader = Reader(model_dir, "cpu", precision, backend=backend)


def ask(question: str, context: str, repeats: int) -> dict:
    """Seconds of each of `repeats` times the same question."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        reader.answer(question, context)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


serve(("torch", "onnxruntime", "tokenizers", "numpy"), ask=ask)
