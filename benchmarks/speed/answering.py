"""Answering with MobileBERT in full size (random weights): many questions, one question warm, one from a cold start.

    python dev/make_random_model.py                        # once
    python benchmarks/speed/answering.py                     # all three, 25 minutes on 2 CPU cores
    python benchmarks/speed/answering.py --only latency

answering   500 real questions. Ours: Reader with every backend and in every precision that is there. Peers:
            transformers' question-answering pipeline and Haystack's ExtractiveReader, in fp32 as they come; at their
            best with questions sorted by length, and in bf16 where the processor has it
latency     the median time of 50 times one short question, each side in a process of its own
cold_start  from starting Python to the answer on screen, files in the system's cache. Ours: `python predict.py ask`.
            Peer: a script that imports the pipeline, loads the same model and answers; at its best without the pipeline

Writes answering.json (our fastest), answering_fp32.json, latency.json and cold_start.json.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "peers")]
import harness
from worker import serve

from extractive_qa.model.folder import ONNX_FILES
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_validation_features
from extractive_qa.reader import Reader
from utils.offline import PROJECT_ROOT

TARGETS = {"answering": 3.5, "answering_fp32": 1.7, "latency": 0.5, "cold_start": 0.33}
LOWER = "(ratio: ours / peer, lower is better)"
QUESTION = "How many ships did the keeper count in his last year?"
CONTEXT = (
    "The lighthouse on the northern cape was lit for the first time in 1871. Its keeper counted every ship that "
    "passed: 1,204 in the first year, but only 73 in 1899, his last. By then most captains took the new canal, which "
    "saved them two days and the dangerous currents around the cape."
)


def ways_to_answer(model_dir: Path) -> dict[str, tuple[str, str]]:
    """Every backend and --mixed_precision in which Reader can answer with this folder on this CPU, by name."""
    ways = {f"Reader, torch, {name}": ("torch", harness.FLAGS[name]) for name in harness.precisions_of("cpu")}
    for name, precision in (("fp32", "no"), ("int8", "int8")):
        if (model_dir / ONNX_FILES[precision]).exists():
            ways[f"Reader, onnx, {name}"] = "onnx", precision
    return ways


def serve_reader(model_dir: str, questions_file: str, backend: str, precision: str) -> None:
    """Our side in a process of its own, as in a user's program: two backends in one make each other's threads wait."""
    reader = Reader(model_dir, "cpu", precision, backend=backend)
    questions = json.loads(Path(questions_file).read_text(encoding="utf-8"))

    def answer(count: int) -> dict:
        return {"seconds": harness.seconds_of(lambda: list(reader.answer_all(questions[:count])))}

    serve(("numpy",), answer=answer)


def open_workers(stack: ExitStack, args, folder: Path, examples: list[dict]) -> tuple[harness.Peer, dict]:
    """The peers' worker, and ours by name."""
    file = folder / "questions.json"
    fields = [{name: example[name] for name in ("question", "context")} for example in examples]
    file.write_text(json.dumps(fields), encoding="utf-8")
    own = {
        name: stack.enter_context(harness.Peer(Path(__file__), "--serve", args.model_dir, file, *way))
        for name, way in ways_to_answer(args.model_dir).items()
    }
    return stack.enter_context(harness.Peer("readers", args.model_dir, file)), own


def measure_answering(args, folder: Path) -> None:
    examples = harness.read_questions(args.eval_file)
    examples = random.Random(0).sample(examples, min(args.questions, len(examples)))

    def rate(worker: harness.Peer, command: str, settings: dict, count: int = len(examples)) -> float:
        return count / worker(command, count=count, **settings)["seconds"]

    with ExitStack() as stack:
        peer, readers = open_workers(stack, args, folder, examples)
        calls = {name: (reader, "answer", {}) for name, reader in readers.items()}
        for precision in harness.precisions_of("cpu"):
            how = {"precision": precision}
            calls[f"pipeline, batch 1, {precision}"] = peer, "answer", how
            calls[f"Haystack, {precision}"] = peer, "answer_by_haystack", how
            for size in (4, 16):
                by_length = how | {"batch_size": size, "by_length": True}
                calls[f"pipeline, batch {size}, by length, {precision}"] = peer, "answer", by_length
        for call in calls.values():
            rate(*call, count=min(8, len(examples)))  # warm up
        figures, others = harness.take_turns({name: partial(rate, *call) for name, call in calls.items()}, args.pairs)

    features = prepare_validation_features(examples, load_tokenizer(args.model_dir), 384, 128)
    tokens = features.lengths.sum().item() / len(examples)
    shares = harness.share_of_peak(figures, harness.MFLOP_PER_TOKEN * tokens)
    plain = ["pipeline, batch 1, fp32", "Haystack, fp32"]
    for benchmark in ("answering", "answering_fp32"):
        names = [name for name in calls if benchmark == "answering" or "fp32" in name]
        own, peers = ([name for name in names if (name in readers) is ours] for ours in (True, False))
        harness.report(
            args, figures, others, peer.versions, benchmark, own, plain, peers, "questions/s", TARGETS[benchmark],
            questions=len(examples), tokens_per_question=tokens, **shares,
        )  # fmt: skip


def measure_latency(args, folder: Path) -> None:
    def milliseconds(worker: harness.Peer, **settings: str) -> float:
        return 1000 * statistics.median(worker("answer", count=1, **settings)["seconds"] for _ in range(args.repeats))

    with ExitStack() as stack:
        peer, readers = open_workers(stack, args, folder, [{"question": QUESTION, "context": CONTEXT}])
        sides = {name: partial(milliseconds, reader) for name, reader in readers.items()}
        theirs = {f"pipeline, {p}": partial(milliseconds, peer, precision=p) for p in harness.precisions_of("cpu")}
        figures, others = harness.take_turns(sides | theirs, args.pairs, warm_up=True)
    harness.report(
        args, figures, others, peer.versions, "latency", list(sides), ["pipeline, fp32"], list(theirs),
        f"ms, p50 {LOWER}", TARGETS["latency"], True, repeats=args.repeats, words=len(CONTEXT.split()),
    )  # fmt: skip


def measure_cold_start(args, folder: Path) -> None:
    def seconds(environment: dict[str, str], *command: object) -> float:
        words = list(map(str, command))
        return harness.seconds_of(lambda: subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE))

    predict = [dict(os.environ), sys.executable, PROJECT_ROOT / "predict.py", "ask", "--model_dir", args.model_dir]
    predict += ["--question", QUESTION, "--context", CONTEXT]
    script = [harness.peer_environment(), harness.peer_python(), harness.PEERS_DIR / "cold_start.py"]
    case = [args.model_dir, QUESTION, CONTEXT]
    commands = {
        "predict.py ask": predict, "pipeline": [*script, *case], "without the pipeline": [*script, "--direct", *case],
    }  # fmt: skip
    sides = {name: partial(seconds, *command) for name, command in commands.items()}
    figures, others = harness.take_turns(sides, args.pairs, warm_up=True)  # files into the system's cache
    (folder / "questions.json").write_text("[]", encoding="utf-8")
    with harness.Peer("readers", args.model_dir, folder / "questions.json") as peer:
        peer_versions = peer.versions
    harness.report(
        args, figures, others, peer_versions, "cold_start", *([name] for name in sides), f"s {LOWER}",
        TARGETS["cold_start"], True,
        files={p.relative_to(args.model_dir).as_posix(): p.stat().st_size
               for p in sorted(args.model_dir.rglob("*")) if p.is_file()},
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, questions=(500, "how many, drawn with a fixed seed"),
        repeats=(50, "questions in a turn of latency; their median time counts"), pairs=5, only="",
        model_dir=(None, "a model (default: MobileBERT, random weights)"),
    )  # fmt: skip
    args.model_dir = (args.model_dir or harness.random_reader()).resolve()
    parts = {"answering": measure_answering, "latency": measure_latency, "cold_start": measure_cold_start}
    harness.run_parts(args, parts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve_reader(*sys.argv[2:])
    else:
        harness.start(main)
