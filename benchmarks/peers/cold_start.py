"""Peer of speed/answering.py, cold: one question, from starting Python to the answer on screen.

python cold_start.py [--direct] MODEL_DIR QUESTION CONTEXT   # by transformers' pipeline; --direct: without it
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
    outside = torch.tensor([part != 1 for part in window.sequence_ids(0)])
    first = output.start_logits[0].masked_fill(outside, -torch.inf).argmax()
    last = output.end_logits[0].masked_fill(outside, -torch.inf)[first:].argmax() + first
    return context[window.token_to_chars(0, int(first)).start : window.token_to_chars(0, int(last)).end]


print(directly(*sys.argv[2:]) if sys.argv[1] == "--direct" else by_pipeline(*sys.argv[1:]))
