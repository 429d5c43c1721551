"""The guard of a training: what is not finite never reaches the weights, and a run that goes on failing stops."""

import logging
import math

from extractive_qa.errors import QAError

logger = logging.getLogger(__name__)

MAX_BAD_STEPS = 20  # in a row; fp16's scaler needs several to find its scale
MAX_ZERO_LOSSES = 3


class FiniteGuard:
    """Stops a run that fails: steps whose loss or gradient is not finite, or whose loss reads exactly 0, in a row."""

    def __init__(self, precision: str):
        self.precision, self.bad_steps, self.zero_losses = precision, 0, 0

    def check(self, step: int, loss: float, grad_norm: float) -> bool:
        """Whether this step may reach the weights. Raises QAError where too many may not."""
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        self.bad_steps = 0 if finite else self.bad_steps + 1
        self.zero_losses = self.zero_losses + 1 if loss == 0.0 else 0
        if not finite and self.precision != "fp16":  # fp16's scaler skips steps as a matter of course
            logger.warning(f"step {step}: loss {loss}, gradient norm {grad_norm}: not applied to the weights")
        if self.bad_steps >= MAX_BAD_STEPS:
            found = f"{self.bad_steps} steps in a row without a finite loss and gradient, none of them applied"
        elif self.zero_losses >= MAX_ZERO_LOSSES:
            found = f"{self.zero_losses} steps in a row with a loss of exactly 0"
        else:
            return finite
        why = (
            "fp16 holds numbers up to 65,504, and MobileBERT's activations pass that. Use --bf16 (Ampere and newer) or "
            "--mixed_precision no"
            if self.precision == "fp16"
            else "The starting weights may be damaged, or --learning_rate too high. Try --mixed_precision no and a "
            "lower --learning_rate, or download the model again: python download_data.py --only model --force"
        )
        raise QAError(f"training stopped at step {step}: {found}. {why}.")
