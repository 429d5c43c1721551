"""Peer of speed/documents.py: Haystack's store in memory, its BM25, and its ExtractiveReader.

python documents.py MODEL_DIR STORE THREADS             # a worker
python documents.py MODEL_DIR STORE THREADS QUESTION    # cold: answers from a store that was saved
"""

import sys
import time
import warnings
from functools import cache
from pathlib import Path

import torch
from haystack import Document
from haystack.components.readers import ExtractiveReader
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice
from worker import serve

model_dir, kept, threads, *asked = sys.argv[1:]
warnings.filterwarnings("ignore", category=FutureWarning)  # that the reader moves to another package
torch.set_num_threads(int(threads))


@cache
def open_reader(token_types: bool = False, **settings: int) -> ExtractiveReader:
    """token_types: the reader hands none to the model, so a BERT takes the text for a part of the question. This adds
    them."""
    reader = ExtractiveReader(
        model=model_dir, token=None, device=ComponentDevice.from_str("cpu"), top_k=1, no_answer=False,
        max_seq_length=384, stride=128, model_kwargs={"dtype": torch.float32, "local_files_only": True}, **settings,
    )  # fmt: skip
    reader.warm_up()
    forward = reader.model.forward

    def forward_with_types(input_ids: torch.Tensor, attention_mask: torch.Tensor):
        ends = (input_ids == reader.tokenizer.sep_token_id).int()
        types = ((ends.cumsum(-1) - ends) > 0) * attention_mask  # 1 behind the first [SEP]
        return forward(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types)

    if token_types:
        reader.model.forward = forward_with_types
    return reader


@cache
def open_retriever() -> InMemoryBM25Retriever:
    return InMemoryBM25Retriever(InMemoryDocumentStore.load_from_disk(kept))


def index(folder: str) -> dict:
    """Makes a store of the files of a folder and saves it."""
    began = time.perf_counter()
    store = InMemoryDocumentStore()
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in sorted(Path(folder).iterdir())]
    store.write_documents([Document(content=text, meta={"file": name}) for name, text in texts])
    store.save_to_disk(kept)
    return {"seconds": time.perf_counter() - began}


def answer(questions: list[str], passages: int, **how: int) -> dict:
    """Answers questions one by one. Returns seconds, of these what the retriever took, the answers, and the names of
    the files found for each."""
    retriever, reader = open_retriever(), open_reader(**how)
    answers, found, retrieving = [], [], 0.0
    began = time.perf_counter()
    for question in questions:
        before = time.perf_counter()
        documents = retriever.run(query=question, top_k=passages)["documents"]
        retrieving += time.perf_counter() - before
        best = reader.run(query=question, documents=documents)["answers"]
        answers.append(best[0].data if best else "")
        found.append([document.meta["file"] for document in documents])
    return {"seconds": time.perf_counter() - began, "retrieving": retrieving, "answers": answers, "files": found}


if asked:
    print(answer(asked, 10)["answers"][0])
else:
    serve(("torch", "transformers", "tokenizers", "haystack-ai", "numpy"), index=index, answer=answer)
