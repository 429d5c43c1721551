"""Asking a folder of documents: every paragraph of a SQuAD file is a .txt file, and questions are asked of all of them.

    python tools/export_onnx.py --sample                           # once, for ONNX Runtime
    python benchmarks/speed/documents.py --only ten                # half an hour on one CPU core
    python benchmarks/speed/documents.py --only five --questions 250
    python benchmarks/speed/documents.py --only cold

ten, five  so many passages are read for a question. Ours: DocumentIndex and answer_documents(ranked=True). Peer:
           Haystack's InMemoryDocumentStore, InMemoryBM25Retriever and ExtractiveReader in fp32. Both have the same
           model and as many threads, and take one question at a time. In every turn all sides answer the same
           questions, each turn other ones. five also has the peer at its best: with token types, which it does not
           hand to the model
cold       from starting Python to the answer on screen, ten passages; the index was made before, and files are in the
           system's cache

Writes documents.json (our fastest), documents_fp32.json, documents_5.json, documents_5_fp32.json and
documents_cold.json. A passage found is right where it is of the question's own paragraph.
"""

import random
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "peers")]
import harness
from worker import serve

from extractive_qa.documents.index import DocumentIndex
from extractive_qa.metrics import compute_metrics
from extractive_qa.model.folder import ONNX_FILES
from extractive_qa.reader import Reader
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR

TARGET, TARGET_COLD = 4, 0.33
COLD = """
import sys
from pathlib import Path
from extractive_qa import Reader
from extractive_qa.documents.index import DocumentIndex

model_dir, folder, kept, threads, precision, question = sys.argv[1:]
passages = DocumentIndex(folder, Path(kept)).best(question)
reader = Reader(model_dir, "cpu", precision, threads=int(threads))
print(reader.answer_documents(question, passages, ranked=True)["text"])
"""


def serve_documents(model_dir: str, folder: str, kept: str, threads: str, precision: str) -> None:
    """Our side in a process of its own: answers as peers/documents.py does."""
    reader, documents = Reader(model_dir, "cpu", precision, threads=int(threads)), DocumentIndex(folder, Path(kept))

    def answer(questions: list[str], passages: int) -> dict:
        answers, files, retrieving = [], [], 0.0
        began = time.perf_counter()
        for question in questions:
            before = time.perf_counter()
            found = documents.best(question, passages)
            retrieving += time.perf_counter() - before
            answers.append(reader.answer_documents(question, found, ranked=True)["text"] if found else "")
            files.append([passage["file"] for passage in found])
        return {"seconds": time.perf_counter() - began, "retrieving": retrieving, "answers": answers, "files": files}

    serve(("numpy",), answer=answer)


class Side:
    """One side of the comparison, and what it has answered so far."""

    def __init__(self, worker: harness.Peer, examples: list[dict], size: int, passages: int, **how: object):
        self.examples, self.size, self.passages = examples, size, passages
        self.ask = partial(worker, "answer", passages=passages, **how)
        self.answers, self.files, self.retrieving = [], [], 0.0
        self.ask(questions=[example["question"] for example in examples[:2]])  # warm up

    def __call__(self) -> float:
        """Answers the next `size` questions. Returns how many a second."""
        some = self.examples[len(self.answers) :][: self.size]
        said = self.ask(questions=[example["question"] for example in some])
        self.answers += said["answers"]
        self.files += said["files"]
        self.retrieving += said["retrieving"]
        return len(some) / said["seconds"]

    def quality(self, names: dict[str, str]) -> dict:
        """EM, F1, in percent of questions how often the right file was found, and milliseconds that finding took.
        names: of the files, by context."""
        asked = self.examples[: len(self.answers)]
        scores = compute_metrics({e["id"]: text for e, text in zip(asked, self.answers, strict=True)}, asked)
        right = [[names[e["context"]] in found[:n] for e, found in zip(asked, self.files, strict=True)]
                 for n in (5, self.passages)]  # fmt: skip
        recall = {f"recall_{n}": 100 * sum(r) / len(asked) for n, r in zip((5, self.passages), right, strict=True)}
        scores = {name: scores[name] for name in ("exact_match", "f1")}
        return scores | recall | {"retrieving_ms": 1000 * self.retrieving / len(asked)}


def prepare(args, folder: Path) -> tuple[list[dict], dict[str, str], list, list]:
    """The questions, drawn with a fixed seed; names of the files by context, which are written to `folder`; and what
    our worker and the peer's are started with."""
    examples = harness.read_questions(args.eval_file)
    names = {context: f"{n:05}.txt" for n, context in enumerate(dict.fromkeys(e["context"] for e in examples))}
    texts, kept = folder / "texts", folder / "kept"
    texts.mkdir()
    for context, name in names.items():
        (texts / name).write_text(context, encoding="utf-8")
    DocumentIndex(texts, kept)
    examples = random.Random(0).sample(examples, min(args.questions, len(examples)))
    ours, peers = [args.model_dir, texts, kept, args.threads], [args.model_dir, folder / "store.json", args.threads]
    with harness.Peer("documents", *peers) as peer:
        peer("index", folder=str(texts))
    return examples, names, ours, peers


def precisions(model_dir: Path) -> dict[str, str]:
    """--mixed_precision by name: by ONNX Runtime where the model was exported."""
    return {"fp32": "no"} | ({"int8": "int8"} if (model_dir / ONNX_FILES["int8"]).exists() else {})


def measure_answering(args, folder: Path, passages: int) -> None:
    examples, names, ours, peers = prepare(args, folder)
    size = len(examples) // args.pairs
    with ExitStack() as stack:
        peer = stack.enter_context(harness.Peer("documents", *peers))
        sides = {"Haystack": Side(peer, examples, size, passages)}
        if passages == 5:
            sides["Haystack, token types"] = Side(peer, examples, size, passages, token_types=True)
        for name, precision in precisions(args.model_dir).items():
            own = stack.enter_context(harness.Peer(Path(__file__), "--serve", *ours, precision))
            sides[f"Reader, {name}"] = Side(own, examples, size, passages)
        figures, others = harness.take_turns(sides, args.pairs)
    quality = {name: side.quality(names) for name, side in sides.items()}
    rows = [[name, *(f"{value:.2f}" for value in found.values())] for name, found in quality.items()]
    harness.print_table(["", *quality["Haystack"]], rows)
    tuned = [name for name in sides if "token" in name]
    for benchmark in ("documents", "documents_fp32"):
        own = [name for name in sides if name.startswith("Reader") and (benchmark == "documents" or "fp32" in name)]
        name = benchmark if passages == 10 else benchmark.replace("documents", f"documents_{passages}")
        harness.report(
            args, figures, others, peer.versions, name, own, ["Haystack"], tuned, "questions/s", TARGET,
            questions=size * args.pairs, files=len(names), passages=passages, threads=args.threads, quality=quality,
        )  # fmt: skip


def measure_cold_start(args, folder: Path) -> None:
    examples, names, ours, peers = prepare(args, folder)
    question = examples[0]["question"]

    def seconds(*command: object) -> float:
        words, how = list(map(str, command)), {"cwd": PROJECT_ROOT, "env": harness.peer_environment()}
        return harness.seconds_of(lambda: subprocess.run(words, check=True, stdout=subprocess.PIPE, **how))

    sides = {
        f"Reader, {name}": partial(seconds, sys.executable, "-c", COLD, *ours, precision, question)
        for name, precision in precisions(args.model_dir).items()
    }
    own = list(sides)
    script = harness.PEERS_DIR / "documents.py"
    sides["Haystack"] = partial(seconds, harness.peer_python(), script, *peers, question)
    figures, others = harness.take_turns(sides, args.pairs, warm_up=True)  # files into the system's cache
    with harness.Peer("documents", *peers) as peer:
        peer_versions = peer.versions
    harness.report(
        args, figures, others, peer_versions, "documents_cold", own, ["Haystack"], [],
        "s (ratio: ours / peer, lower is better)", TARGET_COLD, True, files=len(names), threads=args.threads,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, questions=(500, "how many, drawn with a fixed seed"), pairs=5,
        model_dir=SAMPLE_MODEL_DIR, threads=(1, "of each side"), only="",
    )  # fmt: skip
    args.model_dir = args.model_dir.resolve()
    parts = {name: partial(measure_answering, passages=count) for name, count in (("ten", 10), ("five", 5))}
    harness.run_parts(args, parts | {"cold": measure_cold_start})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve_documents(*sys.argv[2:])
    else:
        harness.start(main)
