"""Reader: a model folder that answers questions.

from extractive_qa import Reader
reader = Reader("output/final_model")
reader.answer("Who wrote it?", "It was written by Ada Lovelace in 1843.")
# {'text': 'Ada Lovelace', 'start': 18, 'end': 30, 'places': [...], 'probability': 0.98, 'answerable': 0.99}
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from extractive_qa import arguments
from extractive_qa.errors import QAError
from extractive_qa.model.backends import BACKENDS, PRECISIONS, OnnxBackend, TorchBackend, open_backend
from extractive_qa.model.families import padding
from extractive_qa.model.folder import card_languages, require_folder, require_model
from extractive_qa.postprocessing.answers import AnswerCollector, apply_minimum_confidence
from extractive_qa.postprocessing.spans import relative_to_cls
from extractive_qa.preprocessing.batches import length_sorted_batches, pad_batch
from extractive_qa.preprocessing.unknown import describe_unknown, unknown_share_of
from extractive_qa.preprocessing.windows import Features, count_ids, load_tokenizer, prepare_validation_features
from extractive_qa.progress import NoProgress
from extractive_qa.settings import check_config, choose_settings, fit_windows
from extractive_qa.text import has_text

logger = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 512  # read and prepared together, so that windows of like length can share a batch
DOCUMENT_QUESTIONS_AT_ONCE = 64  # each with some documents


class Reader:
    """Answers questions from contexts of any length with the model of a folder. Never touches the network.

    model_dir: config.json, safetensors, tokenizer.json and, where the model was trained here, reader.json.
    ~ is the home folder.
    device: "auto", "cpu", "cuda", "cuda:1", "mps"; 1 and "1" are "cuda:1", and a torch.device is taken too.
    mixed_precision: "auto" (bf16 where the device has it, int8 where that was exported), "no" (fp32), "bf16", "fp16" or
    "int8". batch_size: windows at once; None: 4 on a CPU, 32 on a GPU.
    backend: "auto" (ONNX Runtime on a CPU where the model was exported, else PyTorch), "torch" or "onnx"; or a backend
    that is there already, and `settings`, the window settings that go with it (training evaluates with these).
    threads: of ONNX Runtime's pool, or of PyTorch while it computes on a CPU; None: one a core. In a process that was
    forked from one in which PyTorch had computed it has one thread, as the others were not forked.

    The settings of the model, from its reader.json, may be overridden: max_length (tokens in a window), doc_stride
    (overlap of two windows, tokens), max_answer_length (tokens), and handle_impossible_answer: whether "" may be the
    answer where the context holds none, as a model trained on SQuAD 2 says. It competes in the same softmax, with the
    score that [CLS] has, which is 0: it wins where no answer's places together score more than their window's [CLS].
    Windows are no longer than the model has positions for tokens; where they have to be shorter, that is logged.

    A Reader can be pickled: its folder and settings are, and the model is opened again, which another process sees too.

    Raises QAError where the folder holds no model that can answer, the settings don't fit each other, or the device is
    not there; TypeError where an argument is of another kind; ValueError where it is none of what is said here.
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
        path, device = arguments.folder("model_dir", model_dir), arguments.device_name(device)
        arguments.choice("mixed_precision", mixed_precision, PRECISIONS, " (no: fp32)")
        batch_size = None if batch_size is None else arguments.whole("batch_size", batch_size, 1)
        self.threads = None if threads is None else arguments.whole("threads", threads, 1, most=1024)
        if isinstance(backend, type) or not callable(getattr(backend, "logits", None)):
            arguments.choice("backend", backend, BACKENDS, ", or a backend")
        arguments.require_kind("settings", settings, (dict, type(None)), "a dict")
        overrides = arguments.overrides(max_length, doc_stride, max_answer_length, handle_impossible_answer)
        self.model_dir = require_folder(path)  # before any library is loaded
        if opens := isinstance(backend, str):
            backend = open_backend(self.model_dir, backend, device, mixed_precision, self.threads)
        self.backend, self.can_be_pickled = backend, opens  # another's backend may hold anything
        self.batch_size = batch_size or self.backend.batch_size
        self.settings = choose_settings(self.model_dir, settings, overrides)
        self.tokenizer = load_tokenizer(self.model_dir)
        config = self.backend.config
        if problems := check_config(config, count_ids(self.tokenizer)):
            raise QAError(f"{self.model_dir / 'config.json'}: {'; '.join(problems)}. Copy the model again.")
        asked, self.settings = self.settings, fit_windows(self.settings, config)
        if self.settings != asked:
            changed = (f"{name} is {self.settings[name]}, not {asked[name]}" for name in ("max_length", "doc_stride"))
            logger.warning(f"{self.model_dir} has positions for fewer tokens than windows: {', '.join(changed)}")
        self.settings["max_answer_length"] = min(self.settings["max_answer_length"], self.settings["max_length"])
        self.padding = padding(config, self.tokenizer)
        self.languages, self.watches_unknown = card_languages(self.model_dir), True

    def __getstate__(self) -> dict:
        """What a Reader that answers alike is made with. Raises TypeError where it was given a backend object."""
        if not self.can_be_pickled:
            raise TypeError(
                "a Reader that was given a backend object can't be pickled. Expected backend='auto', 'torch' or "
                "'onnx', or a Reader made in the other process."
            )
        backend, device = ("onnx", "cpu") if isinstance(self.backend, OnnxBackend) else ("torch", self.backend.device)
        return {
            "model_dir": self.model_dir.absolute(), "device": str(device), "mixed_precision": self.backend.precision,
            "batch_size": self.batch_size, "backend": backend, "settings": self.settings, "threads": self.threads,
        }  # fmt: skip

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def unknown_share(self, text: str) -> float:
        """The share, 0 to 1, of a text's characters that the model's tokenizer does not know. From 5 % on it was
        trained on another language, and its answers mean little. Raises TypeError where it is no str."""
        arguments.require_text("text", text)
        return unknown_share_of(text, self.tokenizer)

    def answer(self, question: str, context: str, top_k: int = 1, min_confidence: float = 0.0) -> dict | list[dict]:
        """The answer to one question: text, start, end (characters, `context[start:end] == text`), probability: how
        likely this is right; answerable: how likely any answer is there, None where the model has no calibrator (see
        evaluate.py --calibrate) to tell by; and places: where the model finds this answer, from left to right, each
        with start and end. Texts are one answer where they differ in case, white space, marks at their ends or an
        article before them alone. Its probability is that of all its places together, start and end are the best one.

        With top_k > 1 a list of up to top_k answers, best first, none overlapping another. Punctuation or function
        words alone are an answer only where nothing else was found. Where question or context hold no token at all,
        text is "" and probability 0. Any str will do, lone surrogates and control characters too. Answers are tidied
        as EM and F1 don't see: a bracket is closed, a comma at the end left out.
        min_confidence: where the best answer's probability is below it, there is one answer, without text, that keeps
        this probability.
        With handle_impossible_answer one of the answers may be "", start and end 0, with a probability of its own; a
        context without a token then has no other answer, and its probability is 1.

        Raises TypeError where question or context is no str (None, bytes, a number) or another argument no number,
        ValueError where top_k is less than 1 or min_confidence not from 0 to 1, and QAError where the model gives NaN
        or infinity.
        """
        arguments.require_text("question", question)
        arguments.require_text("context", context)
        example = {"question": question, "context": context}
        answers = next(self.answer_all([example], top_k, min_confidence))
        return answers if top_k != 1 else answers[0]

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

        Raises as `answer`, and ValueError, when it comes to it, where an example has no question or context.
        """
        top_k, min_confidence = arguments.whole("top_k", top_k, 1), arguments.share("min_confidence", min_confidence)
        arguments.require_callable("each_batch", each_batch)
        return self._answer_all(
            arguments.several("examples", examples, arguments.EXAMPLES), top_k, min_confidence, each_batch
        )

    def _answer_all(
        self, examples: Iterator[dict], top_k: int, min_confidence: float, each_batch: Callable
    ) -> Iterator[list[dict]]:
        number = 0
        while chunk := list(islice(examples, QUESTIONS_AT_ONCE)):
            for example in chunk:
                arguments.require_fields(f"example {number}", example, ("question", "context"))
                number += 1
            features, contexts = self._prepare(chunk), [example["context"] for example in chunk]
            collector = self._collect(AnswerCollector(features, self.settings, top_k), len(chunk), each_batch)
            has_question = np.diff(features.question_splits) > 0
            for asked, found in zip(has_question.tolist(), collector.answers(contexts), strict=True):
                answers = (asked and found) or [self._nothing()]
                yield apply_minimum_confidence(answers, min_confidence)

    def answer_documents(
        self, question: str | Sequence[str], documents: Sequence, top_k: int = 1, min_confidence: float = 0.0,
        ranked: bool = False,
        each_batch: Callable[[int, int, int], object] = lambda done, windows, questions: None,
    ) -> dict | list:  # fmt: skip
        """The answer to one question in several documents: as `answer` gives it, with its `document` (None where there
        is no text), whose characters start and end count, as each of its places has. Of a list of questions, whose
        documents are a list of as many lists, a list of what one would give.

        documents: texts, or dicts that hold one under `text`, such as the passages that a retriever found; in `answer`
        they come back as they are. All are compared on one scale: one softmax over the spans of all windows of all
        documents, each relative to its window's [CLS], as over the windows of one long text. That is right more often
        than the document whose own probability is highest: docs/EXPERIMENTS.md, "Paragraphs that lack the answer".
        ranked: whether they come in a retriever's order, best first. Then a later one counts less: 2 log(rank) is taken
        off its scores, which is right more often still. each_batch: as answer_all calls it, for 64 questions at a time.

        Raises as `answer`, and ValueError where there is no document, one has no text, or there is not a list of them
        for each question.
        """
        top_k, min_confidence = arguments.whole("top_k", top_k, 1), arguments.share("min_confidence", min_confidence)
        ranked, one = arguments.truth("ranked", ranked), isinstance(question, str)
        arguments.require_callable("each_batch", each_batch)
        asked = arguments.questions_of_documents(question, documents)
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
        answers = answers if top_k != 1 else [found[0] for found in answers]
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
                for place in (answer, *answer["places"]):
                    number = int(np.searchsorted(begin, place["start"], side="right")) - 1
                    first = int(begin[number])
                    place["start"], place["end"] = max(0, place["start"] - first), max(0, place["end"] - first)
                    place["document"] = documents[number]
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
        it advances with the windows, of 512 questions at a time. Raises as `answer_all`, before any answer."""
        arguments.require_callable("each", each)
        bar = NoProgress() if bar is None else bar
        if not hasattr(bar, "n") or not callable(getattr(bar, "update", None)):
            raise arguments.wrong_kind("bar", bar, "None, or a bar as tqdm's")
        examples = arguments.examples_with_ids(examples)
        predictions, probabilities = {}, np.zeros(len(examples))

        def each_batch(done: int, windows: int, questions: int) -> None:
            bar.update(len(predictions) + questions * done // windows - bar.n)

        answered = self.answer_all(examples, top_k, each_batch=each_batch)
        for number, (example, answers) in enumerate(zip(examples, answered, strict=True)):
            predictions[example["id"]], probabilities[number] = answers[0]["text"], answers[0]["probability"]
            bar.update(max(0, number + 1 - bar.n))
            each(example, answers)
        return predictions, probabilities

    def _prepare(self, examples: Sequence[dict]) -> Features:
        """The windows of questions, each on its context."""
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
        return {"text": "", "start": 0, "end": 0, "places": [], "probability": 0.0, "answerable": answerable}

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
        logits = self.backend.logits(pad_batch(rows, self.settings["max_length"], *self.padding))
        if not np.isfinite(logits).all():
            raise QAError(
                f"{self.model_dir} gives NaN or infinity in {self.backend.precision} precision. "
                "Expected finite scores: try mixed_precision='no'; if that fails too, the weights are damaged."
            )
        return rows, logits[0], logits[1]


def count_windows(model_dir: Path, examples: Sequence[dict]) -> np.ndarray:
    """int64 (Q,): how many windows the model of a folder cuts each example's context into."""
    settings = fit_windows(choose_settings(model_dir), require_model(model_dir))
    tokenizer = load_tokenizer(model_dir)
    features = prepare_validation_features(examples, tokenizer, settings["max_length"], settings["doc_stride"])
    return np.bincount(features.example_index, minlength=len(examples))
