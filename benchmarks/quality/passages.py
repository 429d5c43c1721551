"""How well does a model answer from passages that a retriever found, and does it know when the answer is not there?

    python benchmarks/quality/passages.py --model_dir <folder> --eval_file <SQuAD file>

Each question is asked of its own paragraph, of the 5 and the 10 best of all paragraphs of the file by BM25, each by
itself, and of 8 paragraphs of its article joined. Of the answers to several passages one is chosen by a rule:

raw          the best span's score: its start logit plus its end logit
softmax      the same, start and end logits each normalized over their own window first
cls          the same less the window's score of [CLS], where training points when the answer is not there. To choose by
             the probability of one softmax over the spans of all passages is to choose by this
probability  of the span in a softmax over the spans of its own passage and one more candidate, that there is none
votes        as cls, but equal texts (as answers are compared) are one candidate, whose probabilities are added
ranked       cls less 2 log(rank by BM25): a passage counts the less, the later the retriever gave it

AUROC: how often the question's own paragraph scores more than its best BM25 paragraph that lacks every reference as
text. `any` is the chance that any span answers, as `probability` has it: of all spans together.

Writes NAME.json. On one CPU core 300 questions take about 5 minutes with MiniLM-L6.
"""

import random
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness
from long_contexts import normalize

from extractive_qa.metrics import compute_metrics, normalize_answer
from extractive_qa.postprocessing.spans import best_spans, relative_to_cls
from extractive_qa.postprocessing.tidy import tidy
from extractive_qa.reader import Reader
from extractive_qa.training.negatives import best_contexts, forms, is_in
from extractive_qa.training.situations import DEPTH
from utils.console import note
from utils.offline import SAMPLE_MODEL_DIR

PASSAGES = (5, 10)
RANK = 2  # of `ranked`: chosen on held-out training questions, see docs/EXPERIMENTS.md


def read_pairs(reader: Reader, pairs: list[dict]) -> dict[str, np.ndarray]:
    """The best span of each of P pairs of a question and a context by each rule, as (score, text), and under "any" the
    log-odds that any span is the answer: arrays (P,) of floats, and of texts under "raw text", "cls text" ..."""
    features, batches = harness.logits_of(reader, pairs)
    found = {name: np.full(len(pairs), -np.inf) for name in ("raw", "softmax", "cls", "any")}
    texts = {name: np.full(len(pairs), "", dtype=object) for name in ("raw", "softmax", "cls")}
    rules: dict[str, Callable] = {
        "raw": lambda logits, _: logits, "softmax": normalize, "cls": lambda logits, _: relative_to_cls(logits)
    }  # fmt: skip
    for windows, *both in batches:
        start, question = features.context_start[windows], features.example_index[windows]
        first_token = features.first_token[windows]
        size = features.last_token[windows] - first_token
        for name, rule in rules.items():
            scores = [rule(logits, features.lengths[windows]) for logits in both]
            longest = reader.settings["max_answer_length"]
            first, last, score, total = best_spans(*scores, start, start + size, max_answer_length=longest)
            if name == "cls":
                np.logaddexp.at(found["any"], question, total)
            for row in np.flatnonzero(size > 0):
                q, shift = question[row], first_token[row] - start[row]
                if score[row, 0] > found[name][q]:  # of several windows the best
                    begin = features.context_offsets[first[row, 0] + shift, 0]
                    end = features.context_offsets[last[row, 0] + shift, 1]
                    context = pairs[q]["context"]
                    found[name][q], texts[name][q] = score[row, 0], context[slice(*tidy(context, begin, end))]
    found["probability"] = found["cls"] - np.logaddexp(0, found["any"])  # its logarithm
    texts["probability"] = texts["cls"]
    return found | {f"{name} text": array for name, array in texts.items()}


def choose(read: dict[str, np.ndarray], pairs: list[int], rule: str) -> str:
    """The answer to one question, whose pairs are given, best first by BM25."""
    if rule == "ranked":
        scores = read["cls"][pairs] - RANK * np.log1p(np.arange(len(pairs)))
        return read["cls text"][pairs[int(scores.argmax())]]
    if rule != "votes":
        return read[f"{rule} text"][max(pairs, key=lambda pair: read[rule][pair])]
    candidates, best = defaultdict(float), {}
    highest = read["cls"][pairs].max()
    for pair in sorted(pairs, key=lambda pair: -read["cls"][pair]):
        text = read["cls text"][pair]
        candidates[normalize_answer(text)] += np.exp(read["cls"][pair] - highest)
        best.setdefault(normalize_answer(text), text)
    return best[max(candidates, key=candidates.get)]


def auroc(higher: np.ndarray, lower: np.ndarray) -> float:
    """The chance that one of `higher`, (A,), is above one of `lower`, (B,); equal ones count half."""
    return float((higher[:, None] > lower).mean() + (higher[:, None] == lower).mean() / 2)


def find_pairs(examples: list[dict], contexts: list[str]) -> tuple[list[dict], list[dict]]:
    """P pairs of a question and one of the contexts; and for each example the numbers of its pairs: `own`, its best by
    BM25, `ranked`, and the best that lacks its references, `absent`, None where none of the first DEPTH does."""
    ranking = best_contexts([example["question"] for example in examples], contexts, DEPTH)
    in_forms, number = [forms(context) for context in contexts], {c: n for n, c in enumerate(contexts)}
    pairs, asked = [], []
    for example, best in zip(examples, map(np.ndarray.tolist, ranking), strict=True):
        references = [forms(text) for text in example["answers"]["text"]]
        lacking = (c for c in best if not any(is_in(answer, in_forms[c]) for answer in references))
        own, absent, ranked = number[example["context"]], next(lacking, None), best[: max(PASSAGES)]
        wanted = dict.fromkeys([own, *ranked, *([] if absent is None else [absent])])
        place = {c: len(pairs) + n for n, c in enumerate(wanted)}
        pairs += [{"question": example["question"], "context": contexts[c]} for c in wanted]
        ranked = [place[c] for c in ranked] or [place[own]]
        asked.append({"own": place[own], "absent": place.get(absent), "ranked": ranked})
    return pairs, asked


def measure(reader: Reader, examples: list[dict], eval_file: Path, contexts: list[str], joined: int) -> dict:
    """All figures of a model on some examples of a file that has these contexts."""
    pairs, asked = find_pairs(examples, contexts)
    note(f"{len(examples):,} questions, {len(pairs):,} pairs of question and paragraph")
    result = {"paragraphs": len(contexts)} | score(examples, asked, read_pairs(reader, pairs))
    if joined:
        neighbours = harness.ask_of_neighbours(examples, eval_file, joined)
        features, batches = harness.logits_of(reader, neighbours)
        scored = ((windows, *map(relative_to_cls, both)) for windows, *both in batches)
        answers = harness.choose_answers(neighbours, features, reader.settings, scored)
        predictions = {example["id"]: best["text"] for example, (best,) in zip(examples, answers, strict=True)}
        result["joined"] = compute_metrics(predictions, examples)["f1"]
    return result


def score(examples: list[dict], asked: list[dict], read: dict[str, np.ndarray]) -> dict:
    """F1 and AUROC by each rule, from what find_pairs and read_pairs gave."""

    def f1(answers: list[str]) -> float:
        predictions = {example["id"]: answer for example, answer in zip(examples, answers, strict=True)}
        return compute_metrics(predictions, examples)["f1"]

    rules = ("raw", "softmax", "cls", "probability", "votes", "ranked")
    scores = ("raw", "softmax", "cls", "probability", "any")
    tested = [one for one in asked if one["absent"] is not None]
    sides = [np.array([one[side] for one in tested]) for side in ("own", "absent")]
    return {
        "questions": len(examples),
        "own": f1([choose(read, [one["own"]], "cls") for one in asked]),
        "recall": {n: float(np.mean([one["own"] in one["ranked"][:n] for one in asked])) for n in PASSAGES},
        "passages": {n: {rule: f1([choose(read, one["ranked"][:n], rule) for one in asked]) for rule in rules}
                     for n in PASSAGES},
        "auroc": {s: auroc(*(read[s][side] for side in sides)) for s in scores},
        "auroc_questions": len(tested),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, model_dir=SAMPLE_MODEL_DIR, eval_file=harness.DEV_FILE,
        max_samples=(300, "questions, drawn with a fixed seed"),
        joined=(8, "paragraphs of its article that a question is asked of at once; 0: not"),
        name=("passages", "of the result"),
    )  # fmt: skip
    reader = Reader(args.model_dir, batch_size=32, backend="torch")
    examples = harness.read_questions(args.eval_file)
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    examples = random.Random(0).sample(examples, min(args.max_samples, len(examples)))
    found = measure(reader, examples, args.eval_file, contexts, args.joined)
    print(f"F1 of {found['questions']} questions, {found['paragraphs']} paragraphs in the file")
    rows = [["own paragraph", f"{found['own']:.2f}"]]
    rows += [[f"{args.joined} of its article joined", f"{found['joined']:.2f}"]] if args.joined else []
    harness.print_table(["", "cls"], rows)
    print()
    rows = [
        [f"{n} best by BM25", f"{found['recall'][n]:.1%}", *(f"{f1:.2f}" for f1 in by_rule.values())]
        for n, by_rule in found["passages"].items()
    ]
    harness.print_table(["", "own among them", *found["passages"][PASSAGES[0]]], rows)
    print(f"\nAUROC, own paragraph against the best without the answer, {found['auroc_questions']} questions")
    harness.print_table(["", *found["auroc"]], [["", *(f"{value:.3f}" for value in found["auroc"].values())]])
    harness.save(
        args, args.name, **found, model=args.model_dir.name, eval_file=args.eval_file.name,
        device=reader.backend.describe(), mixed_precision=reader.backend.precision,
    )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
