"""An order that is even however early it is left."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def spread_order(count: int) -> npt.NDArray[np.int64]:
    """0 to `count - 1` such that each beginning of the sequence is spread evenly: van der Corput's."""
    bits = max(count - 1, 1).bit_length()
    numbers = np.arange(1 << bits)
    reversed_bits = sum((numbers >> bit & 1) << (bits - 1 - bit) for bit in range(bits))
    return np.asarray(reversed_bits)[np.asarray(reversed_bits) < count]
