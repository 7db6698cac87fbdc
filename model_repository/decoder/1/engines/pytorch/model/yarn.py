"""YaRN (arXiv 2309.00071): rotary frequencies for contexts longer than the model was trained on.

Frequencies that turn often within the trained length stay; those that turn less than once are divided by the factor;
between the two there is a ramp. Attention is sharpened a little in turn, by a factor on cosines and sines.
"""

from __future__ import annotations

import math

import torch

from engines.checkpoint import Yarn


def yarn_frequencies(periods: torch.Tensor, theta: float, yarn: Yarn) -> torch.Tensor:
    """Frequencies [head_dim / 2] from the unstretched ones' inverses, as transformers' `_compute_yarn_parameters`."""
    half = len(periods)

    def dimension(rotations: float) -> float:
        """Which frequency turns this often within the trained length."""
        return half * math.log(yarn.original_positions / (rotations * 2 * math.pi)) / math.log(theta)

    first, last = dimension(yarn.beta_fast), dimension(yarn.beta_slow)
    if yarn.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    # Where both are the same, a step: the reference divides by a thousandth.
    width = last - first or 0.001
    kept = 1 - ((torch.arange(half, dtype=torch.float32) - first) / width).clamp(0, 1)
    # In the reference's order: at a million positions the last bit of a frequency is a tenth of a radian.
    return 1.0 / (yarn.factor * periods) * (1 - kept) + 1.0 / periods * kept
