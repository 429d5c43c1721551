"""Peer of benchmarks/training.py: a plain PyTorch loop, 16 windows at once, AdamW, clipped gradients."""

import sys
import time

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering
from transformers.utils import logging
from worker import serve

model_dir, windows_file = sys.argv[1:]
logging.set_verbosity_error()
torch.manual_seed(0)
model = AutoModelForQuestionAnswering.from_pretrained(model_dir, local_files_only=True)
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)
with np.load(windows_file) as file:
    windows = {name: torch.from_numpy(file[name]) for name in file.files}  # each (N, 384) or (N,)


def train(batches: list[list[int]], padded: bool, bf16: bool) -> dict:
    """One optimizer step on each batch of indices into the windows. Returns seconds and windows."""
    began = time.perf_counter()
    count = 0
    for batch in batches:
        inputs = {name: tensor[batch] for name, tensor in windows.items()}
        if not padded:
            longest = int(inputs["attention_mask"].sum(dim=1).max())
            inputs = {name: tensor[:, :longest] if tensor.ndim > 1 else tensor for name, tensor in inputs.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        count += len(batch)
    return {"seconds": time.perf_counter() - began, "windows": count, "loss": loss.item()}


serve(("torch", "transformers", "numpy"), train=train)
