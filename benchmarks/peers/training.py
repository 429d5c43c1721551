"""Peer of speed/training.py and quality/plain_training.py: a plain PyTorch loop, AdamW, clipped gradients."""

import sys
import time

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering
from transformers.utils import logging
from worker import serve

model_dir, windows_file, seed = sys.argv[1:]
logging.set_verbosity_error()
torch.manual_seed(int(seed))  # the new output layer, and dropout
model = AutoModelForQuestionAnswering.from_pretrained(model_dir, local_files_only=True)
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)
with np.load(windows_file) as file:
    windows = {name: torch.from_numpy(file[name]) for name in file.files}  # each (N, 384) or (N,)


def train(batches: list[list[int]], padded: bool, bf16: bool, rates: list[float] | None = None) -> dict:
    """One optimizer step on each batch of indices into the windows, with a learning rate each. Returns seconds."""
    began = time.perf_counter()
    for step, batch in enumerate(batches):
        inputs = {name: tensor[batch] for name, tensor in windows.items()}
        if not padded:
            longest = int(inputs["attention_mask"].sum(dim=1).max())
            inputs = {name: tensor[:, :longest] if tensor.ndim > 1 else tensor for name, tensor in inputs.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if rates:
            optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
        optimizer.zero_grad()
    return {"seconds": time.perf_counter() - began, "loss": loss.item()}


def save(folder: str) -> dict:
    model.save_pretrained(folder)
    return {}


serve(("torch", "transformers", "numpy"), train=train, save=save)
