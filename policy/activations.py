"""The activations by name; each means what its name says.

| name             | value                                                                     |
|------------------|---------------------------------------------------------------------------|
| `none`           | x (also written None)                                                     |
| `tanh`           | tanh(x)                                                                   |
| `relu`           | max(x, 0)                                                                 |
| `lrelu`          | x above 0, 0.01 x below                                                   |
| `elu`            | x above 0, exp(x) - 1 below                                               |
| `discrete`       | tanh(x) rounded to 11 levels -1, -0.8, … 1: round(5 tanh(x)) / 5; an odd  |
|                  | function, since halves go to the even neighbour on both sides             |
| `gaussian`       | x + std * noise; log(std) per output is learned, std starts at 0.5        |
| `gaussian_fixed` | x + 0.01 * noise                                                          |

The two Gaussian ones are for outputs only. Their noise is drawn in `policy.noise`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from policy.base import checked_choice

# (values, scratch) -> None, changes `values` in place. `scratch` has the same shape, begins as
# zeros and belongs to the activation of one layer alone, from call to call.
Activation = Callable[[np.ndarray, np.ndarray], None]

LEAK = np.float32(0.01)
HALF_LEVELS = np.float32(5)
INITIAL_STD = 0.5
FIXED_STD = 0.01


def _none(values: np.ndarray, scratch: np.ndarray) -> None:
    pass


def _tanh(values: np.ndarray, scratch: np.ndarray) -> None:
    np.tanh(values, out=values)


def _relu(values: np.ndarray, scratch: np.ndarray) -> None:
    # The scratch is never written, so it is still zeros; a scalar zero is slower.
    np.maximum(values, scratch, out=values)


def _lrelu(values: np.ndarray, scratch: np.ndarray) -> None:
    np.multiply(values, LEAK, out=scratch)
    np.maximum(values, scratch, out=values)


def _elu(values: np.ndarray, scratch: np.ndarray) -> None:
    # max(x, 0) + (exp(min(x, 0)) - 1): one of the two terms is zero. np.expm1 is 6 times slower.
    np.minimum(values, 0, out=scratch)
    np.exp(scratch, out=scratch)
    np.subtract(scratch, 1, out=scratch)
    np.maximum(values, 0, out=values)
    np.add(values, scratch, out=values)


def _discrete(values: np.ndarray, scratch: np.ndarray) -> None:
    np.tanh(values, out=values)
    np.multiply(values, HALF_LEVELS, out=values)
    np.rint(values, out=values)
    np.divide(values, HALF_LEVELS, out=values)


ACTIVATIONS: dict[str, Activation] = {
    "none": _none,
    "tanh": _tanh,
    "relu": _relu,
    "lrelu": _lrelu,
    "elu": _elu,
    "discrete": _discrete,
}
GAUSSIAN = ("gaussian", "gaussian_fixed")
OUTPUT_NAMES = (*ACTIVATIONS, *GAUSSIAN)


def hidden_name(name: Any) -> str:
    """Check the name of a hidden activation.

    Raises:
        PolicyError: for names unknown or meant for outputs only.
    """
    return checked_choice("hidden_activation", "none" if name is None else name, tuple(ACTIVATIONS))


def output_name(name: Any) -> str:
    """Check the name of an output activation.

    Raises:
        PolicyError: for unknown names.
    """
    return checked_choice("output_activation", "none" if name is None else name, OUTPUT_NAMES)


def activation(name: str) -> Activation:
    """Find what is computed under a checked name; the Gaussian ones leave their mean as it is."""
    return ACTIVATIONS.get(name, _none)
