"""Peer of benchmarks/answering.py: Haystack's ExtractiveReader, one question and its text at a time."""

import json
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

warnings.filterwarnings("ignore", category=FutureWarning)

import torch
from haystack import Document
from haystack.components.readers import ExtractiveReader
from haystack.utils import ComponentDevice
from worker import serve

model_dir, questions_file = sys.argv[1:]
questions = json.loads(Path(questions_file).read_text(encoding="utf-8"))  # of "question" and "context"
documents = [[Document(content=question["context"])] for question in questions]
readers = {}


def reader_in(precision: str) -> ExtractiveReader:
    """The reader with its model in "fp32", "bf16", or in fp32 to be run under "autocast"."""
    weights = "bf16" if precision == "bf16" else "fp32"
    if weights not in readers:
        dtype = torch.bfloat16 if weights == "bf16" else torch.float32
        readers[weights] = ExtractiveReader(
            model=model_dir,
            token=None,
            device=ComponentDevice.from_str("cpu"),
            top_k=1,
            no_answer=False,
            max_seq_length=384,
            stride=128,
            model_kwargs={"dtype": dtype, "local_files_only": True},
        )
        readers[weights].warm_up()
    return readers[weights]


def answer(count: int, precision: str = "fp32") -> dict:
    """Answers the first `count` questions. Returns seconds, and the spans."""
    reader = reader_in(precision)
    spans = []
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16) if precision == "autocast" else nullcontext():
        for question, own in zip(questions[:count], documents, strict=False):
            found = reader.run(query=question["question"], documents=own)["answers"]
            place = found[0].document_offset if found else None
            spans.append([place.start, place.end] if place else [0, 0])
    return {"seconds": time.perf_counter() - began, "spans": spans}


serve(("torch", "transformers", "haystack-ai", "numpy"), answer=answer)
