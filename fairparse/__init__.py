__version__ = "0.1.0"

from .core.threads import let_threads_sleep

let_threads_sleep()  # before anything loads PyTorch
