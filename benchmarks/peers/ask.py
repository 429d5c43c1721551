"""Peer of benchmarks/cold_start.py: one question, from starting Python to the answer on screen.

python ask.py [--direct] MODEL_DIR QUESTION CONTEXT     through transformers' pipeline; --direct: without it
"""

import sys


def by_pipeline(model_dir: str, question: str, context: str) -> str:
    from transformers import pipeline

    reader = pipeline("question-answering", model=model_dir, tokenizer=model_dir, device="cpu")
    return reader(question=question, context=context)["answer"]


def directly(model_dir: str, question: str, context: str) -> str:
    """The least that the libraries need: tokenizer, model, the best start and the best end after it."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForQuestionAnswering.from_pretrained(model_dir).eval()
    window = tokenizer(question, context, return_tensors="pt", truncation="only_second", max_length=384)
    with torch.inference_mode():
        output = model(**window)
    inside = torch.tensor([part == 1 for part in window.sequence_ids(0)])
    first = output.start_logits[0].masked_fill(~inside, -torch.inf).argmax()
    last = output.end_logits[0].masked_fill(~inside, -torch.inf)[first:].argmax() + first
    begin, end = window.token_to_chars(0, int(first)).start, window.token_to_chars(0, int(last)).end
    return context[begin:end]


if sys.argv[1] == "--direct":
    print(directly(*sys.argv[2:]))
else:
    print(by_pipeline(*sys.argv[1:]))
