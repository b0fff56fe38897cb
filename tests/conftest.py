"""Settings of the whole suite."""

import os

# Before torch is imported, and inherited by the scripts that tests start. On matrices as small as the tests' a second
# thread only waits: with other programs on the cores, a test of test_packed.py took 3.4 s with two threads, 0.2 s with
# one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
