"""Settings of the whole suite."""

import os
import signal
import threading

# Before torch is imported, and inherited by the scripts that tests start. On matrices as small as the tests' a second
# thread only waits: with other programs on the cores, a test of test_packed.py took 3.4 s with two threads, 0.2 s with
# one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell starts in the background is deaf to Ctrl-C, and so would be all that tests start. Python's own handler is
# not inherited by other programs, its absence would be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same of nohup, under which training goes on when its terminal goes.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGHUP, lambda *_: None)
