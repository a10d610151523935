"""Time limits that follow the machine: counted in starts of an interpreter, measured where and when the tests run.

They end what would hang. What must be fast is compared in CPU time with something else in the same test.
"""

from __future__ import annotations

import functools
import resource
import subprocess
import sys
import time


@functools.cache
def start_s() -> float:
    """Return the seconds until a new interpreter has imported torch, measured once per process: 1 to 2 on an idle core."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began


def starts(n: float) -> float:
    """Return the seconds that `n` such starts take here."""
    return n * start_s()


def cpu_s(*arguments: str) -> float:
    """Return the CPU seconds that an interpreter with these arguments takes: what else runs on the machine hardly counts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
