"""Which errors are a lack of memory: of Python, numpy, torch on the CPU or a GPU, in this process or a worker."""

from __future__ import annotations

import errno

_WORDS = (
    "allocate memory",  # torch's CPU allocator, and the system when it cannot load a library
    "out of memory",  # CUDA, MPS
    "ALLOC_FAILED",  # cuBLAS, cuDNN
    "MemoryError",  # of a worker process, which torch can only hand on as text
)


def is_lack_of_memory(error: BaseException) -> bool:
    """By the error's type; where libraries raise a plain RuntimeError or ImportError, by their words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, ImportError)) and any(words in str(error) for words in _WORDS)
