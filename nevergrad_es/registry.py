"""Nevergrad itself, imported so that it is the same in every process.

Some of its optimizers have settings that are drawn from NumPy's global generator at import.
"""

import warnings

import numpy as np
from threadpoolctl import ThreadpoolController

from nevergrad_es.draws import Draws

with Draws(np.zeros(1, np.uint32)).lent():
    import nevergrad as ng

# Of an optimizer's inner affairs, about which a user cannot do anything.
warnings.filterwarnings("ignore", module=r"(nevergrad|cma)\b")

registry = ng.optimizers.registry
Parameter = ng.p.Parameter
THREADS = ThreadpoolController()  # of all that it has loaded
