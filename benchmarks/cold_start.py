"""One question from a cold start: the time from starting Python to the answer on screen.

    python benchmarks/cold_start.py

Ours: `python predict.py ask` with MobileBERT in full size (random weights), with whatever backend it chooses by itself.
Peer: a script that imports transformers' pipeline, loads the same model and answers; at its best without the pipeline.
The files are in the system's cache on both sides. Writes benchmarks/results/cold_start.json. Takes about 2 minutes on 2
CPU cores.
"""

import os
import subprocess
import sys
from pathlib import Path

from latency import CONTEXT, QUESTION
from pairs import (
    PEERS_DIR,
    PROJECT_ROOT,
    Peer,
    arguments,
    cpu,
    own_versions,
    peer_environment,
    peer_python,
    random_reader,
    report,
    seconds_of,
    summarize,
    take_turns,
)

from extractive_qa.errors import QAError
from utils import console

TARGET = 0.33


def run(command: list[str], environment: dict[str, str]) -> None:
    """Runs a command to its end; its output goes to a pipe and must not be empty."""
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode or not done.stdout.strip():
        raise QAError(f"exit code {done.returncode}: {done.stdout}{done.stderr}")


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "cold_start")
    parser.add_argument("--model_dir", type=Path, default=None, help="a model (default: MobileBERT, random weights)")
    args = parser.parse_args(argv)
    model_dir = str((args.model_dir or random_reader()).resolve())

    predict = [sys.executable, str(PROJECT_ROOT / "predict.py"), "ask", "--model_dir", model_dir]
    predict += ["--question", QUESTION, "--context", CONTEXT]
    ask = [str(peer_python()), str(PEERS_DIR / "ask.py")]
    theirs = peer_environment()
    sides = {
        "predict.py ask": lambda: seconds_of(lambda: run(predict, dict(os.environ))),
        "pipeline": lambda: seconds_of(lambda: run([*ask, model_dir, QUESTION, CONTEXT], theirs)),
        "without the pipeline": lambda: seconds_of(
            lambda: run([*ask, "--direct", model_dir, QUESTION, CONTEXT], theirs)
        ),
    }
    for side in sides.values():
        side()  # files into the system's cache
    figures, others = take_turns(sides, args.pairs, args.patience)
    with Peer("versions") as peer:
        versions = {"ours": own_versions(), "peer": peer.versions}
    result = summarize(
        "cold_start", figures, ["predict.py ask"], ["pipeline"], ["without the pipeline"],
        "s (ratio: ours / peer, lower is better)", TARGET, cpu(), versions, lower=True,
        files={path.name: path.stat().st_size for path in sorted(Path(model_dir).iterdir())}, others=others,
    )  # fmt: skip
    report(result, figures, args.results_dir / "cold_start.json")


if __name__ == "__main__":
    console.run(main)
