"""One BLAS thread, wherever arithmetic must not depend on how many there are."""

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager:
    """A context in which products of matrices have the same bits on any number of cores.

    BLAS cuts large products into one part per thread, and adds up in another order then.
    """
    return _controller().limit(limits=1)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")  # NumPy's; finding it takes 1 ms
