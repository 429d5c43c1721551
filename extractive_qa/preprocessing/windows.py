"""Examples to features: sliding windows over the context, and where the answer is in them.

Everything before the model. NumPy and the library `tokenizers` only: answering needs neither torch nor transformers
for this. Each distinct context is tokenized once, though SQuAD asks five questions of it, and windows are cut from its
tokens; nothing is copied until a batch is made. A window is [CLS] question [SEP] piece of context [SEP] (or what the
tokenizer's own pair template puts around them). Cutting equals, id for id, what transformers gives for

    tokenizer(question, context, truncation="only_second", max_length=384, stride=128, return_overflowing_tokens=True)
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from extractive_qa.errors import QAError
from extractive_qa.preprocessing.graphemes import keep_marks
from extractive_qa.preprocessing.letters import keep_letters
from extractive_qa.text import replace_surrogates

logger = logging.getLogger(__name__)

SHORTEST_WINDOW = 16  # tokens
ODD = "a \U0010ffff"  # a token that is known nowhere


def load_tokenizer(model_dir: str | Path) -> Tokenizer:
    """The tokenizer of a model folder, from its tokenizer.json.

    Truncation and padding that were saved with it are switched off: windows are cut here, batches padded in batches.py.
    Raises QAError where the file can't be read.
    """
    path = Path(model_dir) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode("a", ODD)  # what is missing in the file shows here at last
        PairTemplate.of(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except QAError as error:
        raise QAError(f"{path.parent}: {error}") from None
    # the library raises a bare Exception for whatever it can't read, and of what it did not think of a PanicException,
    # which is none
    except BaseException as error:
        raise QAError(
            f"{path} can't be read as a tokenizer: {error}. Expected a tokenizers JSON file. Copy the model again."
        ) from None
    return tokenizer


def count_ids(tokenizer: Tokenizer) -> int:
    """How many tokens a model must know: all ids that the tokenizer gives are below this."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens around a question and a context, ids and token types, as the tokenizer itself sets them."""

    before: list[int]  # [CLS]
    between: list[int]  # [SEP]
    after: list[int]  # [SEP]
    types: list[int]  # of: before, question, between, context, after

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "PairTemplate":
        """Read off an encoded pair, so that it holds for BERT's template as for any other."""
        pair: Encoding = tokenizer.encode("a", "a")
        first = [i for i, sequence in enumerate(pair.sequence_ids) if sequence == 0]
        second = [i for i, sequence in enumerate(pair.sequence_ids) if sequence == 1]
        if not first or not second or first[0] > second[0]:
            raise QAError(
                "tokenizer.json does not put the question before the context. Expected the tokenizer of a BERT-like "
                "encoder. Use another model."
            )
        if first[0] == 0:  # models point at it where the answer is elsewhere
            raise QAError("tokenizer.json puts no token before the question. Expected [CLS] or <s>. Use another model.")
        before, between, after = slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None)
        types = [(pair.type_ids[part] or [0])[0] for part in (before, slice(first[0], None), between)]
        types += [pair.type_ids[second[0]], (pair.type_ids[after] or [0])[0]]
        return cls(pair.ids[before], pair.ids[between], pair.ids[after], types)

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True)
class Features:
    """N windows over the contexts of Q questions. `features[i]` is window i as a dict (see `__getitem__`).

    Token arrays hold every distinct text once; a window is a range of its context's tokens.
    """

    template: PairTemplate
    question_ids: np.ndarray  # int32 (all question tokens,)
    question_splits: np.ndarray  # int64 (Q + 1,): question q has tokens splits[q] to splits[q + 1]
    context_ids: np.ndarray  # int32 (all context tokens,)
    context_offsets: np.ndarray  # int32 (all context tokens, 2): characters into the context
    example_index: np.ndarray  # int32 (N,): the window's question
    first_token: np.ndarray  # int64 (N,), into the context arrays
    last_token: np.ndarray  # int64 (N,), exclusive
    start_position: np.ndarray | None = None  # int64 (N,), for training: 0 ([CLS]) where the answer is elsewhere
    end_position: np.ndarray | None = None  # int64 (N,), inclusive

    def __len__(self) -> int:
        return len(self.example_index)

    @property
    def context_start(self) -> np.ndarray:
        """int64 (N,): where in a window its piece of context begins."""
        question_lengths = np.diff(self.question_splits)[self.example_index]
        return len(self.template.before) + question_lengths + len(self.template.between)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (N,): tokens in each window, special tokens included."""
        return self.context_start + self.last_token - self.first_token + len(self.template.after)

    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of training features: the questions that are labelled in any window, and their answers' first and last token
        (inclusive), in the context arrays; int64 (A,)."""
        labelled = np.flatnonzero(self.start_position > 0)
        questions, first = np.unique(self.example_index[labelled], return_index=True)
        window = labelled[first]
        shift = self.first_token[window] - self.context_start[window]
        return questions, self.start_position[window] + shift, self.end_position[window] + shift

    def __getitem__(self, i: int) -> dict:
        """Window i: input_ids, token_type_ids int32 (tokens,); offsets int32 (tokens, 2), (-1, -1) outside the context;
        example_index, context_start, context_end (exclusive), and for training start_position, end_position: int."""
        t, q = self.template, self.example_index[i]
        question = self.question_ids[self.question_splits[q] : self.question_splits[q + 1]]
        piece = slice(self.first_token[i], self.last_token[i])
        context = self.context_ids[piece]
        sizes = [len(t.before), len(question), len(t.between), len(context), len(t.after)]
        start = sum(sizes[:3])
        offsets = np.full((sum(sizes), 2), -1, dtype=np.int32)
        offsets[start : start + len(context)] = self.context_offsets[piece]
        feature = {
            "input_ids": np.concatenate([t.before, question, t.between, context, t.after]).astype(np.int32),
            "token_type_ids": np.repeat(np.array(t.types, dtype=np.int32), sizes),
            "offsets": offsets,
            "example_index": int(q),
            "context_start": start,
            "context_end": start + len(context),
        }
        if self.start_position is not None:
            feature["start_position"] = int(self.start_position[i])
            feature["end_position"] = int(self.end_position[i])
        return feature


def check_window_settings(max_length: int, doc_stride: int, special_tokens: int = 3) -> list[str]:
    """What is wrong with the settings, for an error before any work: [] where a window can advance."""
    problems = []
    if max_length < SHORTEST_WINDOW:
        problems.append(
            f"max_length={max_length} is too short for a question and a context, expected at least {SHORTEST_WINDOW}"
        )
    elif longest_question(max_length, doc_stride, special_tokens) < 1:
        most = max_length - special_tokens - shortest_step(max_length) - 1
        problems.append(
            f"doc_stride={doc_stride} (the overlap of two windows) leaves no room to advance in windows of "
            f"{max_length} tokens, expected at most {most}"
        )
    if doc_stride < 0:
        problems.append(f"doc_stride={doc_stride} is negative")
    return problems


def shortest_step(max_length: int) -> int:
    """A window advances by at least this many tokens, or a long question would make a window of every token."""
    return max(1, max_length // 16)


def longest_question(max_length: int, doc_stride: int, special_tokens: int) -> int:
    """Tokens of a question that are kept. Longer ones are cut, as BERT's own scripts cut at 64: the end of a 200-token
    question rarely decides, and a reader that answers is worth more than one that refuses."""
    return max_length - special_tokens - doc_stride - shortest_step(max_length)


def prepare_validation_features(
    examples: Sequence[dict], tokenizer: Tokenizer, max_length: int, doc_stride: int
) -> Features:
    """All windows of `examples`, in their order, each question's windows from left to right.

    doc_stride: the overlap of neighbouring windows in tokens, as in transformers (not the step, as in Google's
    scripts). A context without any token has one window with no context in it. A question too long to leave room for a
    window that advances is cut, with a warning. Raises QAError where the settings leave no room at all.
    """
    template = PairTemplate.of(tokenizer)
    if problems := check_window_settings(max_length, doc_stride, template.size):
        raise QAError("; ".join(problems))

    # each distinct context once, in order of appearance
    context_numbers = {}
    for example in examples:
        context_numbers.setdefault(example["context"], len(context_numbers))
    context_ids, context_offsets, context_splits = tokenize(tokenizer, list(context_numbers), with_offsets=True)
    question_ids, _, question_splits = tokenize(tokenizer, [example["question"] for example in examples])
    question_ids, question_splits = cut_questions(
        question_ids, question_splits, longest_question(max_length, doc_stride, template.size)
    )

    context = np.array([context_numbers[example["context"]] for example in examples], dtype=np.int64)
    example_index, first, last = cut_windows(
        np.diff(question_splits), np.diff(context_splits)[context], template.size, max_length, doc_stride
    )
    base = context_splits[context][example_index]
    return Features(
        template, question_ids, question_splits, context_ids, context_offsets, example_index.astype(np.int32),
        first_token=base + first, last_token=base + last,
    )  # fmt: skip


def cut_windows(
    question_lengths: np.ndarray, context_lengths: np.ndarray, special_tokens: int, max_length: int, doc_stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The windows of P pairs of a question and a context, whose lengths in tokens are int (P,): each window's pair, and
    its first and last token (exclusive) of the context, int64 (N,). The first begins at the context's first token, each
    next one a step further, until one reaches the end."""
    capacity = max_length - special_tokens - question_lengths
    step = capacity - doc_stride
    windows = 1 + np.maximum(0, -(-(context_lengths - capacity) // step))
    pair = np.repeat(np.arange(len(windows)), windows)
    number = np.arange(len(pair)) - np.repeat(np.cumsum(windows) - windows, windows)
    first = number * step[pair]
    return pair, first, np.minimum(first + capacity[pair], context_lengths[pair])


def prepare_train_features(
    examples: Sequence[dict], tokenizer: Tokenizer, max_length: int, doc_stride: int
) -> Features:
    """As prepare_validation_features, with the positions of each example's first answer.

    The labelled span is the tokens that share a letter, with its marks, with the answer. Where these are not all in a
    window, or there is no answer, its positions are 0, the [CLS] token.
    """
    features = prepare_validation_features(examples, tokenizer, max_length, doc_stride)
    # characters of the answers, (Q,)
    answers = [first_answer(example) for example in examples]
    begin = np.array([start for start, _ in answers], dtype=np.int64)
    end = begin + np.array([len(text) for _, text in answers], dtype=np.int64)

    # A token's key is its context's first token and its place in the context, so keys rise over all contexts, and one
    # search finds every answer. A context without any token shares its key with the next: its window holds no answer.
    questions = np.arange(len(examples))
    first_of_context = features.first_token[np.searchsorted(features.example_index, questions)]  # (Q,)
    firsts = np.unique(first_of_context)
    base = np.repeat(firsts, np.diff(firsts, append=len(features.context_ids))) << 32
    starts, ends = features.context_offsets.T
    # from the first token that ends after the answer's beginning to the last one that starts before its end
    start_token = np.searchsorted(base + ends, (first_of_context << 32) + begin, side="right")
    end_token = np.searchsorted(base + starts, (first_of_context << 32) + end, side="left") - 1

    start, end = start_token[features.example_index], end_token[features.example_index]
    inside = (features.first_token <= start) & (start <= end) & (end < features.last_token)
    shift = features.context_start - features.first_token
    start_position, end_position = np.where(inside, start + shift, 0), np.where(inside, end + shift, 0)
    return replace(features, start_position=start_position, end_position=end_position)


def first_answer(example: dict) -> tuple[int, str]:
    """Its first character in the context, and its text; -1 and "", which lie in no token, where there is none."""
    answers = example["answers"]
    return (answers["answer_start"][0], answers["text"][0]) if answers["text"] else (-1, "")


def tokenize(
    tokenizer: Tokenizer, texts: list[str], with_offsets: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tokens of all texts in one row: ids int32 (T,), offsets int32 (T, 2), or (0, 2) without, and splits int64
    (texts + 1,). Offsets are the tokenizer's, but that they hold no white space around a token and all of its letters
    (letters.py), and that no mark is parted from its letter (graphemes.py)."""
    encode = tokenizer.encode_batch if with_offsets else tokenizer.encode_batch_fast  # "fast": without offsets
    ids, offsets, sizes = [np.zeros(0, dtype=np.int32)], [np.zeros((0, 2), dtype=np.int32)], [0]
    for begin in range(0, len(texts), 1000):  # 1,000 at a time: an Encoding is far larger than what is kept of it
        some = [replace_surrogates(text) for text in texts[begin : begin + 1000]]
        encodings = encode(some, add_special_tokens=False)
        sizes += [len(encoding) for encoding in encodings]
        ids.append(np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int32))
        if with_offsets:
            numbers = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
            offsets.append(np.fromiter(numbers, dtype=np.int32).reshape(-1, 2))
            keep_letters(tokenizer, some, ids[-1], offsets[-1], sizes[-len(some) :])
            keep_marks(some, offsets[-1], sizes[-len(some) :])
    return np.concatenate(ids), np.concatenate(offsets), np.cumsum(sizes)


def cut_questions(ids: np.ndarray, splits: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Questions as (ids, splits) with none longer than `longest` tokens."""
    lengths = np.diff(splits)
    if (too_long := int((lengths > longest).sum())) == 0:
        return ids, splits
    logger.warning(f"{too_long} question(s) are longer than the {longest} tokens that fit a window, and were cut there")
    place = np.arange(len(ids)) - np.repeat(splits[:-1], lengths)
    return ids[place < longest], np.concatenate([[0], np.cumsum(np.minimum(lengths, longest))])
