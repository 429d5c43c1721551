"""Choosing the best answer, and the 20 best, from logits that are in memory.

    python benchmarks/spans.py

Ours: extractive_qa.postprocessing.spans in batches of 32 windows, as extractive_qa.reader calls it. Peer: the usual Python loops over the 20 best
starts and ends, the windows rows of a dataset and padded to 384; at its best the same loops over Python lists, made
beforehand, without padding, or the vectorised search of transformers' pipeline. Each side keeps the same number of
answers. The logits are those of models/sample, computed once and kept in benchmarks/.cache. The best answers of both
are compared. Writes benchmarks/results/spans_best.json and spans_20_best.json. Takes about 3 minutes on 2 CPU cores,
and 2 more for logits.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from pairs import DEV_FILE, PROJECT_ROOT, Peer, arguments, cpu, own_versions, report, seconds_of, summarize, take_turns

from extractive_qa.data.examples import read_examples
from extractive_qa.files.manifest import sha256_of
from extractive_qa.postprocessing.answers import AnswerCollector
from extractive_qa.postprocessing.spans import relative_to_cls
from extractive_qa.preprocessing.batches import length_sorted_batches, padded_length
from extractive_qa.preprocessing.windows import Features, prepare_validation_features
from extractive_qa.reader import Reader
from utils import console
from utils.offline import SAMPLE_MODEL_DIR

CACHE_DIR = PROJECT_ROOT / "benchmarks" / ".cache"
BATCH_SIZE = 32
TARGETS = {1: 10, 20: 5}


def logits_of(reader: Reader, examples: list[dict], cache: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and end logits of every token of every window in one row, float32, and the windows' lengths; from `cache`
    where it was computed before."""
    settings = reader.settings
    features = prepare_validation_features(examples, reader.tokenizer, settings["max_length"], settings["doc_stride"])
    lengths = features.lengths
    if not cache.exists():
        splits = np.concatenate([[0], np.cumsum(lengths)])
        start, end = (np.zeros(splits[-1], dtype=np.float32) for _ in range(2))
        console.note(f"computing the logits of {len(features):,} windows, once ...")
        for windows in length_sorted_batches(lengths, BATCH_SIZE):
            _, start_logits, end_logits = reader.logits(features, windows)
            for row, i in enumerate(windows):
                start[splits[i] : splits[i + 1]] = start_logits[row, : lengths[i]]
                end[splits[i] : splits[i + 1]] = end_logits[row, : lengths[i]]
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, start=start, end=end)
    # scores in bf16 often tie, and which of two equal ones is taken means nothing: a jitter far below its steps decides
    jitter = np.random.default_rng(0).normal(scale=1e-4, size=(2, int(lengths.sum()))).astype(np.float32)
    with np.load(cache) as file:
        return features, file["start"] + jitter[0], file["end"] + jitter[1]


def padded_batches(features, start: np.ndarray, end: np.ndarray, max_length: int) -> list[tuple]:
    """Batches as the model gives them: the windows' numbers, and logits (B, L)."""
    lengths = features.lengths
    splits = np.concatenate([[0], np.cumsum(lengths)])
    batches = []
    for windows in length_sorted_batches(lengths, BATCH_SIZE):
        logits = np.zeros((2, len(windows), padded_length(int(lengths[windows].max()), max_length)), dtype=np.float32)
        for row, i in enumerate(windows):
            logits[0, row, : lengths[i]] = start[splits[i] : splits[i + 1]]
            logits[1, row, : lengths[i]] = end[splits[i] : splits[i + 1]]
        batches.append((windows, *logits))
    return batches


def choose(
    features: Features, batches: list[tuple], contexts: list[str], settings: dict, n_best: int, relative: bool = True
) -> list:
    """The n_best best answers of every question, as extractive_qa.reader chooses them; with relative=False windows compete by
    their raw scores."""
    comparable = relative_to_cls if relative else lambda logits: logits
    choice = AnswerCollector(features, settings, n_best)
    for windows, start_logits, end_logits in batches:
        choice.add(windows, comparable(start_logits), comparable(end_logits))
    return choice.answers(contexts)


def only_highest(features: Features, batches: list[tuple], count: int) -> list[tuple]:
    """The batches with all but each window's `count` highest starts and ends out of the question."""
    limited = []
    for windows, *logits in batches:
        lengths = features.lengths[windows]
        kept = []
        for some in logits:
            real = np.where(np.arange(some.shape[1]) < lengths[:, None], some, -1e9)
            least = np.sort(real, axis=1)[:, -count, None]
            kept.append(np.where(real >= least, real, -1e9).astype(np.float32))
        limited.append((windows, *kept))
    return limited


def compare(ours: list, raw: list, few: list, theirs: list, features) -> dict:
    """How many best answers differ from the peer's, and why. raw: ours with windows competing by raw scores; few: the
    same among the 20 highest starts and ends only, as the peer has it."""
    windows = np.bincount(features.example_index, minlength=len(ours))
    counts = {
        "equal": 0,
        "windows compete less [CLS]": 0,
        "not among the peer's 20 starts and ends": 0,
        "both": 0,
        "unexplained": 0,
    }
    for answers, raw_answers, few_answers, span, number in zip(ours, raw, few, theirs, windows, strict=True):
        mine, raw_mine, few_mine = (
            [found[0]["start"], found[0]["end"]] if found else [0, 0] for found in (answers, raw_answers, few_answers)
        )
        if mine == span:
            counts["equal"] += 1
        elif number > 1 and raw_mine == span:
            counts["windows compete less [CLS]"] += 1
        elif few_mine == span:
            counts["not among the peer's 20 starts and ends" if raw_mine == mine else "both"] += 1
        else:
            counts["unexplained"] += 1
            console.note(f"not the peer's: {answers[:1]}, raw {raw_answers[:1]}, {few_answers[:1]} for {span}")
    return counts


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "spans_best")
    parser.add_argument("--eval_file", type=Path, default=DEV_FILE, help="questions")
    parser.add_argument("--max_samples", type=int, default=4_961, help="use only so many questions")
    parser.add_argument("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="a trained model")
    args = parser.parse_args(argv)

    examples = read_examples(args.eval_file, "validation")[: args.max_samples]
    contexts = [example["context"] for example in examples]
    reader = Reader(args.model_dir, "cpu", batch_size=BATCH_SIZE, backend="torch")
    key = f"{sha256_of(args.model_dir / 'model.safetensors')[:8]}-{args.eval_file.stem}-{len(examples)}"
    features, start, end = logits_of(reader, examples, CACHE_DIR / f"logits-{key}.npz")
    batches = padded_batches(features, start, end, reader.settings["max_length"])

    with tempfile.TemporaryDirectory() as folder:
        offsets = np.concatenate([features[i]["offsets"] for i in range(len(features))])
        np.savez(
            Path(folder) / "logits.npz", start=start, end=end, lengths=features.lengths, offsets=offsets,
            example_index=features.example_index, contexts=np.array(contexts),
        )  # fmt: skip
        with Peer("spans", Path(folder) / "logits.npz", reader.settings["max_answer_length"]) as peer:

            def theirs(way: str, n_best: int) -> float:
                return len(examples) / peer("decode", way=way, n_best=n_best)["seconds"]

            for n_best, target in TARGETS.items():
                work = partial(choose, features, batches, contexts, reader.settings, n_best)
                sides = {
                    f"extractive_qa.postprocessing.spans, {n_best} kept": lambda work=work: (
                        len(examples) / seconds_of(work)
                    ),
                    f"loops over a dataset, {n_best} kept": partial(theirs, "dataset", n_best),
                    f"loops over lists, {n_best} kept": partial(theirs, "lists", n_best),
                    f"transformers' pipeline, {n_best} kept": partial(theirs, "pipeline", n_best),
                }
                for side in sides.values():
                    side()  # warm up
                figures, others = take_turns(sides, args.pairs, args.patience)
                theirs("dataset", n_best)
                few = choose(
                    features, only_highest(features, batches, 20), contexts, reader.settings, n_best, relative=False
                )
                compared = compare(work(), work(relative=False), few, peer("best")["spans"], features)
                print(f"best answers beside the peer's: {compared}")
                ours, dataset, lists, pipeline = figures
                name = "spans_best" if n_best == 1 else f"spans_{n_best}_best"
                result = summarize(
                    name, figures, [ours], [dataset], [lists, pipeline], "questions/s", target, cpu(),
                    {"ours": own_versions(), "peer": peer.versions},
                    questions=len(examples), windows=len(features), best_answers=compared, others=others,
                )  # fmt: skip
                report(result, figures, args.results_dir / f"{name}.json")


if __name__ == "__main__":
    console.run(main)
