"""What has to happen before torch is imported, so scripts import this first.

Threads that wait for work spin, which is fastest where nobody else is. But two runs on one machine
crawl so: each spins on the cores that the other one needs. GNU's OpenMP, which PyTorch has on
Linux, lets them sleep after so many turns: after 3,000 a run alone is as fast, and two share the
machine (benchmarks/README.md has numbers). And Ctrl-C while torch is imported, which takes a second
or two, ends at once and without a traceback.
"""
import os
import signal
import sys


def heed_interrupts():
    """From now on Ctrl-C raises KeyboardInterrupt again (if it is not ignored)."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if "torch" not in sys.modules:  # else somebody imports a script, as a notebook does: too late
    if "OMP_WAIT_POLICY" not in os.environ:  # somebody's own choice
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
