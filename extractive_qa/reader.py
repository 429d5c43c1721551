"""Reader: a model folder that answers questions.

from extractive_qa import Reader
reader = Reader("output/final_model")
reader.answer("Who wrote it?", "It was written by Ada Lovelace in 1843.")
# {'text': 'Ada Lovelace', 'start': 18, 'end': 30, 'probability': 0.98, 'answerable': 0.99}
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from extractive_qa.errors import QAError
from extractive_qa.model.backends import OnnxBackend, TorchBackend, open_backend
from extractive_qa.model.folder import card_languages, require_folder
from extractive_qa.postprocessing.answers import AnswerCollector, apply_minimum_confidence
from extractive_qa.postprocessing.spans import relative_to_cls
from extractive_qa.preprocessing.batches import length_sorted_batches, pad_batch
from extractive_qa.preprocessing.unknown import describe_unknown, unknown_share_of
from extractive_qa.preprocessing.windows import Features, load_tokenizer, prepare_validation_features
from extractive_qa.progress import NoProgress
from extractive_qa.settings import DEFAULT_SETTINGS, SETTINGS_FILE, check_config, check_settings, read_settings
from extractive_qa.text import has_text

logger = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 512  # read and prepared together, so that windows of like length can share a batch
DOCUMENT_QUESTIONS_AT_ONCE = 64  # each with some documents


class Reader:
    """Answers questions from contexts of any length with the model of a folder. Never touches the network.

    model_dir: config.json, safetensors, tokenizer.json and, where the model was trained here, reader.json.
    device: "auto", "cpu", "cuda", "cuda:1", "mps". mixed_precision: "auto" (bf16 where the device has it, int8 where
    that was exported), "no", "bf16", "fp16" or "int8". batch_size: windows at once; None: 16 on a CPU, 32 on a GPU.
    backend: "auto" (ONNX Runtime on a CPU where the model was exported, else PyTorch), "torch" or "onnx"; or a backend
    that is there already, and `settings`, the window settings that go with it (training evaluates with these).
    threads: of ONNX Runtime's pool, or of PyTorch while it computes on a CPU; None: one a core.

    The settings of the model, from its reader.json, may be overridden: max_length (tokens in a window), doc_stride
    (overlap of two windows, tokens), max_answer_length (tokens), and handle_impossible_answer: whether "" may be the
    answer where the context holds none, as a model trained on SQuAD 2 says. It competes in the same softmax, with the
    score that [CLS] has, which is 0: it wins where no span of any window scores more than its window's [CLS].

    Raises QAError where the folder holds no model that can answer, or the device is not there.
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
        threads: int | None = None,
    ):
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1")
        self.model_dir = require_folder(model_dir)  # before any library is loaded
        if isinstance(backend, str):
            backend = open_backend(self.model_dir, backend, device, mixed_precision, threads)
        self.backend = backend
        self.batch_size = batch_size or self.backend.batch_size
        overrides = {
            "max_length": max_length, "doc_stride": doc_stride, "max_answer_length": max_answer_length,
            "handle_impossible_answer": handle_impossible_answer,
        }  # fmt: skip
        overrides = {name: value for name, value in overrides.items() if value is not None}
        self.settings = DEFAULT_SETTINGS | (read_settings(self.model_dir) if settings is None else settings) | overrides
        self.tokenizer = load_tokenizer(self.model_dir)
        if problems := check_settings(self.settings):
            arguments = ", ".join(f"{name}={value!r:.40}" for name, value in overrides.items())
            given = f" with Reader(..., {arguments})" if overrides else ""
            fix = "Fix the file, or delete it: then the defaults hold."
            raise QAError(f"{self.model_dir / SETTINGS_FILE}{given}: {'; '.join(problems)}. {fix}")
        config = self.backend.config
        if problems := check_config(config, self.settings["max_length"], self.tokenizer.get_vocab_size()):
            raise QAError(f"{self.model_dir / 'config.json'}: {'; '.join(problems)}. Copy the model again.")
        self.settings["max_answer_length"] = min(self.settings["max_answer_length"], self.settings["max_length"])
        self.pad_id = config.get("pad_token_id") or 0
        self.languages, self.watches_unknown = card_languages(self.model_dir), True

    def unknown_share(self, text: str) -> float:
        """The share, 0 to 1, of a text's characters that the model's tokenizer does not know. From 5 % on it was
        trained on another language, and its answers mean little."""
        return unknown_share_of(text, self.tokenizer)

    def answer(self, question: str, context: str, top_k: int = 1, min_confidence: float = 0.0) -> dict | list[dict]:
        """The answer to one question: text, start, end (characters, `context[start:end] == text`), probability: how
        likely this is right; and answerable: how likely any answer is there, None where the model has no calibrator
        (see evaluate.py --calibrate) to tell by.

        With top_k > 1 a list of up to top_k answers, best first, none overlapping another, and none but the first
        punctuation or function words alone. Where question or context hold no token at all, text is "" and probability
        0. Any str will do, lone surrogates and control characters too. Answers are tidied as EM and F1 don't see: a
        bracket is closed, a comma at the end left out.
        min_confidence: where the best answer's probability is below it, there is one answer, without text, that keeps
        this probability.
        With handle_impossible_answer one of the answers may be "", start and end 0, with a probability of its own; a
        context without a token then has no other answer, and its probability is 1.

        Raises TypeError where question or context is no str (None, bytes, a number), ValueError where top_k is less
        than 1, and QAError where the model gives NaN or infinity.
        """
        example = {"question": question, "context": context}
        answers = next(self.answer_all([example], top_k, min_confidence))
        return answers if top_k > 1 else answers[0]

    def answer_all(
        self,
        examples: Iterable[dict],
        top_k: int = 1,
        min_confidence: float = 0.0,
        each_batch: Callable[[int, int, int], object] = lambda done, windows, questions: None,
    ) -> Iterator[list[dict]]:
        """The up to top_k best answers of each example (question, context), in order, as `answer` gives them.

        Examples may be a stream: 512 are read at a time, and logits are kept for the last few batches alone.
        each_batch(done, windows, questions) is called before and after each batch of windows: how many are done, of how
        many, and of how many questions these are.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1")
        examples = iter(examples)
        while chunk := list(islice(examples, QUESTIONS_AT_ONCE)):
            features, contexts = self._prepare(chunk), [example["context"] for example in chunk]
            collector = self._collect(AnswerCollector(features, self.settings, top_k), len(chunk), each_batch)
            has_question = np.diff(features.question_splits) > 0
            for number, found in enumerate(collector.answers(contexts)):
                answers = (has_question[number] and found) or [self._nothing()]
                yield apply_minimum_confidence(answers, min_confidence)

    def answer_documents(
        self, question: str | Sequence[str], documents: Sequence, top_k: int = 1, min_confidence: float = 0.0,
        ranked: bool = False,
        each_batch: Callable[[int, int, int], object] = lambda done, windows, questions: None,
    ) -> dict | list:  # fmt: skip
        """The answer to one question in several documents: as `answer` gives it, with its `document` (None where there
        is no text), whose characters start and end count. Of a list of questions, whose documents are a list of as many
        lists, a list of what one would give.

        documents: texts, or dicts that hold one under `text`, such as the passages that a retriever found; in `answer`
        they come back as they are. All are compared on one scale: one softmax over the spans of all windows of all
        documents, each relative to its window's [CLS], as over the windows of one long text. That is right more often
        than the document with the highest probability of its own: docs/RESULTS.md, "Paragraphs that lack the answer".
        ranked: whether they come in a retriever's order, best first. Then a later one counts less: 2 log(rank) is taken
        off its scores, which is right more often still. each_batch: as answer_all calls it, for 64 questions at a time.

        Raises as `answer`, and ValueError where there is no document, or not a list of them for each question.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1")
        one = isinstance(question, str)
        asked = list(zip([question], [documents], strict=True) if one else zip(question, documents, strict=True))
        answers = [
            apply_minimum_confidence(found, min_confidence)
            for first in range(0, len(asked), DOCUMENT_QUESTIONS_AT_ONCE)
            for found in self._answer_documents(
                asked[first : first + DOCUMENT_QUESTIONS_AT_ONCE], top_k, ranked, each_batch
            )
        ]
        for found in answers:
            for answer in found:
                if not answer["text"]:
                    answer["document"] = None
        answers = answers if top_k > 1 else [found[0] for found in answers]
        return answers[0] if one else answers

    def _answer_documents(
        self, asked: Sequence[tuple[str, Sequence]], top_k: int, ranked: bool, each_batch: Callable
    ) -> list[list[dict]]:
        """The answers to questions, each with its documents: as if these followed one another in one text."""
        collector, begins, texts = self.collect_documents(
            [(question, [d if isinstance(d, str) else d["text"] for d in documents]) for question, documents in asked],
            top_k, ranked, each_batch,
        )  # fmt: skip
        answers = []
        for (question, documents), begin, best in zip(asked, begins, collector.answers(texts), strict=True):
            found = best if has_text(question) and best else [self._nothing()]
            for answer in found:
                number = int(np.searchsorted(begin, answer["start"], side="right")) - 1
                place = int(begin[number])
                answer["start"], answer["end"] = max(0, answer["start"] - place), max(0, answer["end"] - place)
                answer["document"] = documents[number]
            answers.append(found)
        return answers

    def collect_documents(
        self, asked: Sequence[tuple[str, Sequence[str]]], top_k: int = 1, ranked: bool = False,
        each_batch: Callable[[int, int, int], object] = lambda done, windows, questions: None,
    ) -> tuple[AnswerCollector, list[np.ndarray], list[str]]:  # fmt: skip
        """The collected spans of Q questions, each asked of its texts; where each text begins in the question's joined
        one, in characters; and the Q joined texts. A text that comes again counts once."""
        pairs, question_of, rank, shift, begins, texts = [], [], [], [], [], []
        for number, (question, documents) in enumerate(asked):
            if isinstance(documents, str) or not documents:
                raise ValueError(f"there are no documents for {question!r:.60}: expected a list of them")
            begin = np.cumsum([0, *(len(text) + 1 for text in documents)])[:-1]
            for text in dict.fromkeys(documents):
                pairs.append({"question": question, "context": text})
                question_of.append(number)
                rank.append(documents.index(text))
                shift.append(begin[rank[-1]])
            begins.append(begin)
            texts.append("\n".join(documents))
        features = self._prepare(pairs)
        pair = features.example_index  # (N,), of each window
        handicap = np.log1p(np.array(rank))[pair] if ranked else None  # off both logits of a span
        collector = AnswerCollector(features, self.settings, top_k, np.array(question_of)[pair], np.array(shift)[pair])
        return self._collect(collector, len(asked), each_batch, handicap), begins, texts

    def predict(
        self,
        examples: Sequence[dict],
        top_k: int = 1,
        each: Callable[[dict, list[dict]], object] = lambda example, answers: None,
        bar=None,
    ) -> tuple[dict[str, str], np.ndarray]:
        """{id: text} of the best answers to all examples (id, question, context), and their probabilities, float (Q,).

        each(example, answers) is called for every question when it is answered. bar: one of tqdm's kind, of questions;
        it advances with the windows, which are of 512 questions at a time.
        """
        predictions, probabilities, bar = {}, np.zeros(len(examples)), bar or NoProgress()

        def each_batch(done: int, windows: int, questions: int) -> None:
            bar.update(len(predictions) + questions * done // windows - bar.n)

        answered = self.answer_all(examples, top_k, each_batch=each_batch)
        for number, (example, answers) in enumerate(zip(examples, answered, strict=True)):
            predictions[example["id"]], probabilities[number] = answers[0]["text"], answers[0]["probability"]
            bar.update(max(0, number + 1 - bar.n))
            each(example, answers)
        return predictions, probabilities

    def _prepare(self, examples: Sequence[dict]) -> Features:
        """The windows of questions, each on its context. Raises TypeError where one is no str."""
        for example in examples:
            for name in ("question", "context"):
                if not isinstance(example[name], str):
                    raise TypeError(f"{name} is {example[name]!r:.40} ({type(example[name]).__name__}), expected str")
        settings = self.settings
        features = prepare_validation_features(examples, self.tokenizer, settings["max_length"], settings["doc_stride"])
        contexts = [example["context"] for example in examples]
        if self.watches_unknown and (line := describe_unknown(features, contexts, self.tokenizer, self.languages)):
            logger.warning(line)
            self.watches_unknown = False  # once is enough
        return features

    def _nothing(self) -> dict:
        """The answer where there is no token to answer from, or none that asks."""
        answerable = None if self.settings["calibrator"] is None else 0.0
        return {"text": "", "start": 0, "end": 0, "probability": 0.0, "answerable": answerable}

    def _collect(
        self, collector: AnswerCollector, questions: int,
        each_batch: Callable[[int, int, int], object] = lambda done, windows, questions: None,
        handicap: np.ndarray | None = None,
    ) -> AnswerCollector:  # fmt: skip
        """Has the collector see the scores of all its windows. handicap: float (N,), what is taken off the start and
        end scores of each window."""
        features, done = collector.features, 0
        for windows in length_sorted_batches(features.lengths, self.batch_size):
            each_batch(done, len(features), questions)
            _, start_logits, end_logits = self.logits(features, windows)
            scores = relative_to_cls(start_logits), relative_to_cls(end_logits)
            if handicap is not None:
                scores = [part - handicap[windows, None].astype(np.float32) for part in scores]
            collector.add(windows, *scores)
            done += len(windows)
            each_batch(done, len(features), questions)
        collector.find_spans()
        return collector

    def logits(self, features: Features, windows: Sequence[int]) -> tuple[list[dict], np.ndarray, np.ndarray]:
        """The windows as dicts, and start_logits and end_logits float32 (B, L).

        Raises QAError where the model gives NaN or infinity.
        """
        rows = [features[i] for i in windows]
        logits = self.backend.logits(pad_batch(rows, self.settings["max_length"], self.pad_id))
        if not np.isfinite(logits).all():
            raise QAError(
                f"{self.model_dir} gives NaN or infinity in {self.backend.precision} precision. "
                "Expected finite scores: try mixed_precision='no'; if that fails too, the weights are damaged."
            )
        return rows, logits[0], logits[1]


def count_windows(model_dir: Path, examples: Sequence[dict]) -> np.ndarray:
    """int64 (Q,): how many windows the model of a folder cuts each example's context into."""
    settings = DEFAULT_SETTINGS | read_settings(model_dir)
    tokenizer = load_tokenizer(model_dir)
    features = prepare_validation_features(examples, tokenizer, settings["max_length"], settings["doc_stride"])
    return np.bincount(features.example_index, minlength=len(examples))
