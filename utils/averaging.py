"""The exponential moving average of a model's weights, which is scored and saved in place of the last ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class WeightAverage:
    """After each step t: average = d * average + (1 - d) * weights, where d = min(decay, (1 + t) / (10 + t)): the first
    steps, far from where the training leads, are soon forgotten. It never touches the training itself."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay = decay
        self.parameters = list(model.parameters())
        self.tensors = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """step: optimizer steps done, this one included."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.tensors, self.parameters, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again after that: nothing is computed or copied."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        for i, parameter in enumerate(self.parameters):
            parameter.data, self.tensors[i] = self.tensors[i], parameter.data

    def load(self, tensors: list[torch.Tensor]) -> None:
        """Takes up `tensors` of a checkpoint. Raises ValueError where they don't fit the model."""
        if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in self.tensors]:
            raise ValueError("the average is of another model's weights")
        self.tensors = tensors
