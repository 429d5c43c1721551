"""Peer of speed/preparing.py: windows and labels with `datasets.map` and the tokenizer's overflow.

What training scripts commonly do: in batches of 1,000 questions the fast tokenizer cuts the windows of each pair, a
Python loop walks over the tokens of every window to find the answer, and `map` writes an Arrow file.
"""

import sys
import time
from pathlib import Path

import datasets
from transformers import AutoTokenizer
from worker import serve

model_dir, examples_file, folder = sys.argv[1:]
datasets.disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
questions = datasets.Dataset.from_json(examples_file, cache_dir=f"{folder}/read")


def windows_with_labels(examples: dict, padding: bool | str) -> dict:
    """The windows of a batch of questions, with the first and last token of the answer: 0 where it is not inside."""
    windows = tokenizer(
        [question.lstrip() for question in examples["question"]], examples["context"], truncation="only_second",
        max_length=384, stride=128, return_overflowing_tokens=True, return_offsets_mapping=True, padding=padding,
    )  # fmt: skip
    question_of = windows.pop("overflow_to_sample_mapping")
    windows["start_positions"], windows["end_positions"] = [], []
    for number, offsets in enumerate(windows.pop("offset_mapping")):
        answers = examples["answers"][question_of[number]]
        begin = answers["answer_start"][0]
        end = begin + len(answers["text"][0])
        parts = windows.sequence_ids(number)
        first = 0
        while parts[first] != 1:
            first += 1
        last = len(parts) - 1
        while parts[last] != 1:
            last -= 1
        if offsets[first][0] > begin or offsets[last][1] < end:
            first = last = 0
        else:
            while first < len(offsets) and offsets[first][0] <= begin:
                first += 1
            first -= 1
            while offsets[last][1] >= end:
                last -= 1
            last += 1
        windows["start_positions"].append(first)
        windows["end_positions"].append(last)
    return windows


def prepare(padded: bool, count: int | None = None) -> dict:
    """Prepares the first `count` questions (None: all), cold, its file written. Returns seconds."""
    some = questions.select(range(count)) if count else questions
    cache = Path(folder) / "prepared.arrow"
    cache.unlink(missing_ok=True)
    began = time.perf_counter()
    some.map(
        windows_with_labels, batched=True, remove_columns=some.column_names, load_from_cache_file=False,
        cache_file_name=str(cache), fn_kwargs={"padding": "max_length" if padded else False},
    )  # fmt: skip
    return {"seconds": time.perf_counter() - began}


serve(("transformers", "tokenizers", "datasets", "pyarrow"), prepare=prepare)
