"""Peer of benchmarks/answering.py and latency.py: transformers' question-answering pipeline."""

import json
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline
from transformers.utils import logging
from worker import serve

model_dir, questions_file = sys.argv[1:]
logging.set_verbosity_error()
warnings.filterwarnings("ignore", category=FutureWarning)  # of questions as a list of dicts
questions = json.loads(Path(questions_file).read_text(encoding="utf-8"))  # of "question" and "context"
tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
SETTINGS = {"max_seq_len": 384, "doc_stride": 128, "max_answer_len": 30}
pipelines = {}


def pipeline_in(precision: str):
    """The pipeline with its model in "fp32", "bf16", or in fp32 to be run under "autocast"."""
    weights = "bf16" if precision == "bf16" else "fp32"
    if weights not in pipelines:
        dtype = torch.bfloat16 if weights == "bf16" else torch.float32
        model = AutoModelForQuestionAnswering.from_pretrained(model_dir, local_files_only=True, dtype=dtype)
        pipelines[weights] = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")
    return pipelines[weights]


def context_of(precision: str):
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "autocast" else nullcontext()


def answer(
    count: int,
    batch_size: int = 1,
    precision: str = "fp32",
    by_length: bool = False,
    align_to_words: bool = True,
    **more: object,
) -> dict:
    """Answers the first `count` questions, as they come or sorted by length; `more`: further arguments of the pipeline.
    Returns seconds, and the spans."""
    reader = pipeline_in(precision)
    began = time.perf_counter()
    order = list(range(count))
    if by_length:
        order.sort(key=lambda i: len(questions[i]["context"]) + len(questions[i]["question"]), reverse=True)
    with context_of(precision):
        answers = reader(
            [questions[i] for i in order], batch_size=batch_size, align_to_words=align_to_words, **SETTINGS, **more
        )
    seconds = time.perf_counter() - began
    answers = answers if isinstance(answers, list) else [answers]
    spans = [
        [found["start"], found["end"]] for _, found in sorted(zip(order, answers, strict=True), key=lambda p: p[0])
    ]
    return {"seconds": seconds, "spans": spans}


def ask(question: str, context: str, repeats: int, precision: str = "fp32") -> dict:
    """Seconds of each of `repeats` times the same question."""
    reader = pipeline_in(precision)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        with context_of(precision):
            reader(question=question, context=context, **SETTINGS)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


serve(("torch", "transformers", "tokenizers", "numpy"), answer=answer, ask=ask)
