"""What has to happen before torch is imported, so scripts import this first.

The threads that wait for work sleep (OMP_WAIT_POLICY), or two runs on one machine crawl: each
spins on the cores that the other one needs (benchmarks/README.md has numbers). And Ctrl-C while
torch is imported, which takes a second or two, ends at once and without a traceback.
"""
import os
import signal
import sys


def heed_interrupts():
    """From now on Ctrl-C raises KeyboardInterrupt again (if it is not ignored)."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if "torch" not in sys.modules:  # else somebody imports a script, as a notebook does: too late
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
