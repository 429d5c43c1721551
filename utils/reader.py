"""Reader: a model folder that answers questions.

from utils.reader import Reader
reader = Reader("output/final_model")
reader.answer("Who wrote it?", "It was written by Ada Lovelace in 1843.")
# {'text': 'Ada Lovelace', 'start': 18, 'end': 30, 'probability': 0.98}
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from unicodedata import category

import numpy as np

from utils.backends import OnnxBackend, TorchBackend, open_backend
from utils.batches import length_sorted_batches, pad_batch
from utils.console import UserError
from utils.families import usable_positions
from utils.files import read_json_object
from utils.spans import best_spans, log_normalisers, match_any_best, merge_windows, relative_to_cls
from utils.windows import Features, check_window_settings, load_tokenizer, prepare_validation_features

SETTINGS_FILE = "reader.json"
# of a folder without reader.json (trained elsewhere), and what reader.json does not say
DEFAULT_SETTINGS = {
    "max_length": 384, "doc_stride": 128, "max_answer_length": 30, "handle_impossible_answer": False,
    "temperature": 1.0, "references": 1.0,
}  # fmt: skip
SPANS_KEPT = 5  # of each window, at least: enough to see which spans two windows share
SPANS_SPARE = 2  # more than asked for, as one of six is punctuation
WINDOWS_AT_ONCE = 128  # whose spans are looked for together: NumPy's calls take as long for a batch of 16
QUESTIONS_AT_ONCE = 512  # read and prepared together, so that windows of like length can share a batch


class Reader:
    """Answers questions from contexts of any length with the model of a folder. Never touches the network.

    model_dir: config.json, safetensors, tokenizer.json and, where the model was trained here, reader.json.
    device: "auto", "cpu", "cuda", "cuda:1", "mps". mixed_precision: "auto" (bf16 where the device has it, int8 where
    that was exported), "no", "bf16", "fp16" or "int8". batch_size: windows at once; None: 16 on a CPU, 32 on a GPU.
    backend: "auto" (ONNX Runtime on a CPU where the model was exported, else PyTorch), "torch" or "onnx"; or a backend
    that is there already, and `settings`, the window settings that go with it (training evaluates with these).

    The settings of the model, from its reader.json, may be overridden: max_length (tokens in a window), doc_stride
    (overlap of two windows, tokens), max_answer_length (tokens), and handle_impossible_answer: whether "" may be the
    answer where the context holds none, as a model trained on SQuAD 2 says. It competes in the same softmax, with the
    score that [CLS] has, which is 0: it wins where no span of any window scores more than its window's [CLS].

    Raises UserError where the folder holds no model that can answer, or the device is not there.
    """

    def __init__(
        self,
        model_dir: str | Path,
        device: str = "auto",
        mixed_precision: str = "auto",
        batch_size: int | None = None,
        backend: "str | OnnxBackend | TorchBackend" = "auto",
        settings: dict | None = None,
        *,
        max_length: int | None = None,
        doc_stride: int | None = None,
        max_answer_length: int | None = None,
        handle_impossible_answer: bool | None = None,
    ):
        self.model_dir = Path(model_dir)
        if isinstance(backend, str):
            backend = open_backend(self.model_dir, backend, device, mixed_precision)
        self.backend = backend
        self.batch_size = batch_size or self.backend.batch_size
        overrides = {
            "max_length": max_length, "doc_stride": doc_stride, "max_answer_length": max_answer_length,
            "handle_impossible_answer": handle_impossible_answer,
        }  # fmt: skip
        overrides = {name: value for name, value in overrides.items() if value is not None}
        self.settings = DEFAULT_SETTINGS | (read_settings(self.model_dir) if settings is None else settings) | overrides
        self.tokenizer = load_tokenizer(self.model_dir)
        config = read_json_object(self.model_dir / "config.json", "a Hugging Face model's settings")
        if problems := check_settings(self.settings):
            given = (
                f" with Reader(..., {', '.join(f'{n}={v!r:.40}' for n, v in overrides.items())})" if overrides else ""
            )
            mend = "Mend the file, or delete it: then the defaults hold."
            raise UserError(f"{self.model_dir / SETTINGS_FILE}{given}: {'; '.join(problems)}. {mend}")
        if problems := check_config(config, self.settings["max_length"], self.tokenizer.get_vocab_size()):
            raise UserError(f"{self.model_dir / 'config.json'}: {'; '.join(problems)}. Copy the model anew.")
        self.settings["max_answer_length"] = min(self.settings["max_answer_length"], self.settings["max_length"])
        self.pad_id = config.get("pad_token_id") or 0

    def answer(self, question: str, context: str, top_k: int = 1) -> dict | list[dict]:
        """The answer to one question: text, start, end (characters, `context[start:end] == text`), probability.

        With top_k > 1 a list of up to top_k answers, best first, none overlapping another, and none but the first
        punctuation alone. Where question or context hold no token at all, text is "" and probability 0. Any str will
        do, lone surrogates and control characters too.
        With handle_impossible_answer one of the answers may be "", start and end 0, with a probability of its own; a
        context without a token then has no other answer, and its probability is 1.

        Raises TypeError where question or context is no str (None, bytes, a number), ValueError where top_k is less
        than 1, and UserError where the model gives NaN or infinity.
        """
        answers = next(self.answer_all([{"question": question, "context": context}], top_k))
        return answers if top_k > 1 else answers[0]

    def answer_all(
        self, examples: Iterable[dict], top_k: int = 1, temperatures: Sequence[float] = ()
    ) -> Iterator[list[dict]]:
        """The up to top_k best answers of each example (question, context), in order, as `answer` gives them.

        Examples may be a stream: 512 are read at a time, and logits are kept for the last few batches alone.
        temperatures: where some are given, the best answer has `probabilities` too, what its probability would be at
        each of them with `references` 1. Which answers are the best is the same at every temperature.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1")
        examples = iter(examples)
        while chunk := list(islice(examples, QUESTIONS_AT_ONCE)):
            yield from self._answer_chunk(chunk, top_k, temperatures)

    def _answer_chunk(self, examples: Sequence[dict], top_k: int, temperatures: Sequence[float]) -> list[list[dict]]:
        for example in examples:
            for name in ("question", "context"):
                if not isinstance(example[name], str):
                    raise TypeError(f"{name} is {example[name]!r:.40} ({type(example[name]).__name__}), expected str")
        settings = self.settings
        features = prepare_validation_features(examples, self.tokenizer, settings["max_length"], settings["doc_stride"])
        choice = Choice(features, settings, top_k, temperatures)
        for windows in length_sorted_batches(features.lengths, self.batch_size):
            rows, start_logits, end_logits = self.logits(features, windows)
            choice.add(windows, self.comparable(start_logits, rows), self.comparable(end_logits, rows))

        nothing = {"text": "", "start": 0, "end": 0, "probability": 0.0}
        if len(temperatures):
            nothing["probabilities"] = [0.0] * len(temperatures)
        has_question = np.diff(features.question_splits) > 0
        answers = choice.answers([example["context"] for example in examples])
        return [(has_question[i] and found) or [nothing] for i, found in enumerate(answers)]

    def comparable(self, logits: np.ndarray, rows: Sequence[dict]) -> np.ndarray:
        """Logits (B, L) of the windows `rows` on a scale that all windows of a question share."""
        return relative_to_cls(logits)

    def logits(self, features: Features, windows: Sequence[int]) -> tuple[list[dict], np.ndarray, np.ndarray]:
        """The windows as dicts, and start_logits and end_logits float32 (B, L).

        Raises UserError where the model gives NaN or infinity.
        """
        rows = [features[i] for i in windows]
        logits = self.backend.logits(pad_batch(rows, self.settings["max_length"], self.pad_id))
        if not np.isfinite(logits).all():
            raise UserError(
                f"{self.model_dir} gives NaN or infinity in {self.backend.precision} precision. "
                "Expected finite scores: try --mixed_precision no; if that fails too, the weights are damaged."
            )
        return rows, logits[0], logits[1]


def only_punctuation(text: str) -> bool:
    """Whether a text that is not empty has no letter, digit or symbol: the full stop between two answers."""
    return not text[:1].isalnum() and text != "" and all(category(c)[0] in "PZ" for c in text)


def withhold_unsure(answers: list[dict], min_confidence: float) -> list[dict]:
    """The answers to a question, or, where the best one's probability is below `min_confidence`, in its place one with
    no text that keeps its probability. `--min_confidence` everywhere."""
    if answers[0]["probability"] >= min_confidence:
        return answers
    return [{"text": "", "start": 0, "end": 0, "probability": answers[0]["probability"]}]


class Choice:
    """The best spans of the questions of `features`, gathered batch by batch, and at last their top_k best answers. No
    scores are kept but those of the spans, and of the last few batches. temperatures: as Reader.answer_all has them."""

    def __init__(self, features: Features, settings: dict, top_k: int = 1, temperatures: Sequence[float] = ()):
        self.features, self.settings, self.top_k, self.temperatures = features, settings, top_k, temperatures
        self.context_start = features.context_start
        # some are left out at the end; a window has no more than it has tokens
        shape = len(features), min(max(top_k + SPANS_SPARE, SPANS_KEPT), settings["max_length"])
        self.start, self.end = np.zeros((2, *shape), dtype=np.int64)  # characters into the contexts
        self.score = np.full(shape, -np.inf)
        self.log_normaliser = np.full(len(features), -np.inf)
        self.log_normalisers = np.full((len(features), len(temperatures)), -np.inf)
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, windows: np.ndarray, start_scores: np.ndarray, end_scores: np.ndarray) -> None:
        """The windows' scores of every token, (B, L), on a scale that all windows of a question share."""
        self.waiting.append((windows, start_scores, end_scores))
        if sum(len(some) for some, *_ in self.waiting) >= WINDOWS_AT_ONCE:
            self.find_spans()

    def find_spans(self) -> None:
        """Finds the best spans of the windows that wait."""
        features = self.features
        if not self.waiting or not len(features.context_offsets):
            return  # nothing to do, or no context has a token
        windows = np.concatenate([some for some, *_ in self.waiting])
        length = max(scores.shape[1] for _, scores, _ in self.waiting)
        start_scores, end_scores = (
            np.concatenate([np.pad(some[i], ((0, 0), (0, length - some[i].shape[1]))) for some in self.waiting])
            for i in (1, 2)
        )
        self.waiting.clear()
        context_start, first_token = self.context_start[windows], features.first_token[windows]
        context_end = context_start + features.last_token[windows] - first_token
        logits, longest = (start_scores, end_scores, context_start, context_end), self.settings["max_answer_length"]
        first, last, score, log_normaliser = best_spans(
            *logits,
            n_best=self.score.shape[1],
            max_answer_length=longest,
            temperature=self.settings["temperature"],
        )
        if len(self.temperatures):
            self.log_normalisers[windows] = log_normalisers(*logits, self.temperatures, longest)
        # tokens of windows to characters of contexts; where there is no span (score -inf) any token will do
        shift = np.where(score > -np.inf, (first_token - context_start)[:, None], 0)  # (B, n)
        self.start[windows] = features.context_offsets[np.minimum(first + shift, len(features.context_offsets) - 1), 0]
        self.end[windows] = features.context_offsets[np.minimum(last + shift, len(features.context_offsets) - 1), 1]
        self.score[windows], self.log_normaliser[windows] = score, log_normaliser

    def answers(self, contexts: Sequence[str]) -> list[list[dict]]:
        """Each question's best answers: text, start, end, probability; [] where no window has a span."""
        self.find_spans()
        self.trim(contexts)
        impossible = self.settings["handle_impossible_answer"]
        windows_of = np.bincount(self.features.example_index, minlength=len(contexts))
        first_window = np.cumsum(windows_of) - windows_of
        answers: list[list[dict]] = [[] for _ in contexts]
        for count in np.unique(windows_of):  # questions with as many windows together
            questions = np.flatnonzero(windows_of == count)
            windows = first_window[questions, None] + np.arange(count)  # (Q, count)
            spans = [array[windows].reshape(len(questions), -1) for array in (self.start, self.end, self.score)]
            log_normalisers = self.log_normalisers[windows]  # (Q, count, temperatures)
            log_normaliser = self.log_normaliser[windows]
            if impossible:  # one more candidate, seen by all windows with the same score: that of [CLS], less itself
                spans = [
                    np.pad(array, ((0, 0), (0, 1)), constant_values=v)
                    for array, v in zip(spans, (-1, 0, 0), strict=True)
                ]
                log_normaliser = np.pad(log_normaliser, ((0, 0), (0, 1)))
                log_normalisers = np.pad(log_normalisers, ((0, 0), (0, 1), (0, 0)))
            candidates = self.score.shape[1] if self.top_k > 1 else 1
            start, end, probability = merge_windows(*spans, log_normaliser, candidates)
            probability = match_any_best(probability, self.settings["references"])
            columns = np.maximum(start, 0), end, probability, end > start  # no answer begins at -1
            for question, *best in zip(questions.tolist(), *(array.tolist() for array in columns), strict=True):
                context = contexts[question]
                found = [
                    {"text": context[start:end], "start": start, "end": end, "probability": probability}
                    for start, end, probability, there in zip(*best, strict=True)
                    if there
                ]
                others = [answer for answer in found[1:] if not only_punctuation(answer["text"])]
                answers[question] = found[:1] + others[: self.top_k - 1]
            if len(self.temperatures):
                self.add_probabilities([answers[question] for question in questions], *spans, log_normalisers)
        return answers

    def trim(self, contexts: Sequence[str]) -> None:
        """Takes white space off both ends of every span: to byte-level and Unigram tokenizers the space before a word
        may belong to it."""
        window, n = np.nonzero(self.score > -np.inf)
        question, start, end = self.features.example_index[window], self.start[window, n], self.end[window, n]
        for i, (q, first, last) in enumerate(zip(*(a.tolist() for a in (question, start, end)), strict=True)):
            context = contexts[q]
            if first < last and (context[first].isspace() or context[last - 1].isspace()):
                text = context[first:last]
                start[i] = last - len(text.lstrip())
                end[i] = max(start[i], first + len(text.rstrip()))
        self.start[window, n], self.end[window, n] = start, end

    def add_probabilities(
        self, answers: list[list[dict]], start: np.ndarray, end: np.ndarray, score: np.ndarray, normalisers: np.ndarray
    ) -> None:
        """Gives the best answer of each of Q questions its `probabilities`. start, end, score: (Q, spans); normalisers:
        (Q, W, temperatures)."""
        at_each = []
        for number, temperature in enumerate(self.temperatures):
            rescaled = score * (self.settings["temperature"] / temperature)  # spans' scores are over the reader's own
            _, _, probability = merge_windows(start, end, rescaled, normalisers[:, :, number])
            at_each.append(probability[:, 0])
        for found, probabilities in zip(answers, np.stack(at_each, axis=1).tolist(), strict=True):
            if found:
                found[0]["probabilities"] = probabilities


def count_windows(model_dir: Path, examples: Sequence[dict]) -> np.ndarray:
    """int64 (Q,): how many windows the model of a folder cuts each example's context into."""
    settings = DEFAULT_SETTINGS | read_settings(model_dir)
    tokenizer = load_tokenizer(model_dir)
    features = prepare_validation_features(examples, tokenizer, settings["max_length"], settings["doc_stride"])
    return np.bincount(features.example_index, minlength=len(examples))


def save_reader(folder: Path, model, tokenizer_dir: Path, settings: dict) -> None:
    """Writes a plain Hugging Face folder (safetensors, config, tokenizer) with `settings` as reader.json."""
    model.save_pretrained(folder)
    load_tokenizer(tokenizer_dir).save(str(folder / "tokenizer.json"))  # without truncation and padding
    for name in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (Path(tokenizer_dir) / name).exists():
            shutil.copyfile(Path(tokenizer_dir) / name, folder / name)
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def read_settings(model_dir: Path) -> dict:
    """What reader.json of a folder says, {} where there is none. Raises UserError where it can't be read."""
    path = model_dir / SETTINGS_FILE
    return read_json_object(path, "the settings that train.py saves") if path.exists() else {}


def check_settings(settings: dict) -> list[str]:
    """What is wrong with the settings that a reader answers with."""
    whole_numbers = ("max_length", "doc_stride", "max_answer_length")
    problems = [
        f"{name} is {settings[name]!r:.40}, expected a whole number"
        for name in whole_numbers
        if type(settings[name]) is not int
    ]
    if not problems:
        problems = check_window_settings(settings["max_length"], settings["doc_stride"])
        if settings["max_answer_length"] < 1:
            problems.append(f"max_answer_length is {settings['max_answer_length']}, expected at least 1")
    if type(settings["handle_impossible_answer"]) is not bool:
        problems.append(
            f"handle_impossible_answer is {settings['handle_impossible_answer']!r:.40}, expected true or false"
        )
    for name, least in (("temperature", 0.01), ("references", 1)):
        if type(settings[name]) not in (int, float) or not least <= settings[name] <= 100:
            problems.append(f"{name} is {settings[name]!r:.40}, expected a number from {least} to 100 (1: as trained)")
    return problems


def check_config(config: dict, max_length: int, tokens: int) -> list[str]:
    """What keeps a model with this config.json from answering in windows of `max_length` tokens out of the `tokens`
    that its tokenizer knows."""
    names = ("max_position_embeddings", "vocab_size", "pad_token_id")
    problems = [
        f"{name} is {config[name]!r:.40}, expected a whole number"
        for name in names
        if type(config.get(name)) not in (int, type(None))
    ]
    if problems:
        return problems
    if (positions := usable_positions(config) or max_length) < max_length:
        problems.append(
            f"the model has {positions} positions for tokens, but windows have {max_length} tokens. "
            f"Expected max_length of at most that in {SETTINGS_FILE}"
        )
    known = config.get("vocab_size") or tokens
    if tokens > known:
        problems.append(f"the model knows {known} tokens, but tokenizer.json has {tokens}: files of two models")
    if not 0 <= (config.get("pad_token_id") or 0) < known:
        problems.append(f"pad_token_id is {config['pad_token_id']}, expected 0 to {known - 1}")
    return problems
