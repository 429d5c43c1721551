"""Peers of speed/answering.py: transformers' question-answering pipeline, and Haystack's ExtractiveReader, which takes
one question and its text at a time."""

import json
import sys
import time
import warnings
from functools import cache
from pathlib import Path

import torch
from worker import serve

model_dir, questions_file = sys.argv[1:]
warnings.filterwarnings("ignore", category=FutureWarning)  # of questions as a list of dicts
questions = json.loads(Path(questions_file).read_text(encoding="utf-8"))  # of "question" and "context"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SETTINGS = {"max_seq_len": 384, "doc_stride": 128, "max_answer_len": 30}


@cache
def open_pipeline(precision: str):
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    model = AutoModelForQuestionAnswering.from_pretrained(model_dir, local_files_only=True, dtype=DTYPES[precision])
    return pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")


@cache
def open_haystack(precision: str):
    from haystack import Document
    from haystack.components.readers import ExtractiveReader
    from haystack.utils import ComponentDevice

    reader = ExtractiveReader(
        model=model_dir, token=None, device=ComponentDevice.from_str("cpu"), top_k=1, no_answer=False,
        max_seq_length=384, stride=128, model_kwargs={"dtype": DTYPES[precision], "local_files_only": True},
    )  # fmt: skip
    reader.warm_up()
    return reader, [[Document(content=question["context"])] for question in questions]


def answer(count: int, precision: str = "fp32", batch_size: int = 1, by_length: bool = False, **more: object) -> dict:
    """Answers the first `count` questions by the pipeline, as they come or sorted by length; `more`: further arguments
    of it. Returns seconds, and the spans."""
    reader = open_pipeline(precision)
    began = time.perf_counter()
    order = list(range(count))
    if by_length:
        order.sort(key=lambda i: len(questions[i]["context"]) + len(questions[i]["question"]), reverse=True)
    answers = reader([questions[i] for i in order], batch_size=batch_size, **SETTINGS, **more)
    seconds = time.perf_counter() - began
    answers = answers if isinstance(answers, list) else [answers]
    spans = {i: [found["start"], found["end"]] for i, found in zip(order, answers, strict=True)}
    return {"seconds": seconds, "spans": [spans[i] for i in range(count)]}


def answer_by_haystack(count: int, precision: str = "fp32") -> dict:
    """Answers the first `count` questions by Haystack. Returns seconds, and the spans."""
    reader, documents = open_haystack(precision)
    spans = []
    began = time.perf_counter()
    for question, own in zip(questions[:count], documents, strict=False):
        found = reader.run(query=question["question"], documents=own)["answers"]
        place = found[0].document_offset if found else None
        spans.append([place.start, place.end] if place else [0, 0])
    return {"seconds": time.perf_counter() - began, "spans": spans}


libraries = ("torch", "transformers", "tokenizers", "haystack-ai", "numpy")
serve(libraries, answer=answer, answer_by_haystack=answer_by_haystack)
