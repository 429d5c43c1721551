"""One short question with MobileBERT in full size (random weights), warm: the median time to its answer.

    python benchmarks/latency.py

Ours: extractive_qa.reader in every precision and with every backend that is there, each in a process of its own. Peer:
transformers' question-answering pipeline in fp32; at its best also in bf16. Writes benchmarks/results/latency.json.
Takes about 2 minutes on 2 CPU cores.
"""

import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from answering import backends_of
from pairs import Peer, arguments, cpu, own_versions, random_reader, report, summarize, take_turns

from utils import console

TARGET = 0.5
QUESTION = "How many ships did the keeper count in his last year?"
CONTEXT = (
    "The lighthouse on the northern cape was lit for the first time in 1871. Its keeper counted every ship that "
    "passed: 1,204 in the first year, but only 73 in 1899, his last. By then most captains took the new canal, which "
    "saved them two days and the dangerous currents around the cape."
)


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "latency")
    parser.add_argument("--repeats", type=int, default=50, help="questions in a turn; their median time counts")
    parser.add_argument("--model_dir", type=Path, default=None, help="a model (default: MobileBERT, random weights)")
    args = parser.parse_args(argv)
    model_dir = args.model_dir or random_reader()

    question = {"question": QUESTION, "context": CONTEXT, "repeats": args.repeats}

    def median_of(worker: Peer, **settings: str):
        return lambda: 1000 * statistics.median(worker("ask", **question, **settings)["seconds"])

    with tempfile.TemporaryDirectory() as folder, ExitStack() as workers:
        no_questions = Path(folder) / "questions.json"
        no_questions.write_text(json.dumps([]), encoding="utf-8")
        peer = workers.enter_context(Peer("pipeline", model_dir.resolve(), no_questions))
        readers = {
            f"Reader, {name}": workers.enter_context(Peer("reader_process", model_dir.resolve(), *way, ours=True))
            for name, way in backends_of(model_dir).items()
        }
        own = {name: median_of(reader) for name, reader in readers.items()}
        best = {f"pipeline, {precision}": median_of(peer, precision=precision) for precision in ("bf16", "autocast")}
        sides = own | {"pipeline": median_of(peer, precision="fp32")} | best
        for side in sides.values():
            side()  # warm up
        figures, others = take_turns(sides, args.pairs, args.patience)
        versions = {"ours": own_versions(), "peer": peer.versions}
    result = summarize(
        "latency", figures, list(own), ["pipeline"], list(best), "ms, p50 (ratio: ours / peer, lower is better)",
        TARGET, cpu(), versions, lower=True, repeats=args.repeats, words=len(CONTEXT.split()),
        others=others,
    )  # fmt: skip
    report(result, figures, args.results_dir / "latency.json")


if __name__ == "__main__":
    console.run(main)
