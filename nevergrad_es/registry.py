"""Nevergrad itself, imported so that it is the same in every process.

Some of its optimizers have settings that are drawn from NumPy's global generator at import.
"""

import warnings
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from nevergrad_es.draws import Draws

with Draws(np.zeros(1, np.uint32)).lent():
    import nevergrad as ng
    from nevergrad.optimization.optimizerlib import _CMA

# Of an optimizer's inner affairs, about which a user cannot do anything.
warnings.filterwarnings("ignore", module=r"(nevergrad|cma)\b")

registry = ng.optimizers.registry
Parameter = ng.p.Parameter
THREADS = ThreadpoolController()  # of all that it has loaded


class UnboundedCMA(_CMA):
    """CMA that does not find out anew, with each candidate, that no parameter has bounds.

    It gives the same candidates in half the time.
    """

    @property
    def es(self) -> Any:
        """pycma's part, made anew when it has stopped."""
        if self._es is None or self._config.fcmaes or self._es.stop():
            return super().es
        return self._es


def unbounded_cma(optimizer: Any) -> UnboundedCMA | None:
    """Make what is CMA in an optimizer of parameters without bounds aware of that.

    Returns:
        That part; None if the optimizer is something else.
    """
    chosen = getattr(optimizer, "optim", optimizer)  # of those that choose one
    if type(chosen) is not _CMA:
        return None
    chosen.__class__ = UnboundedCMA
    return chosen
