"""Settings of the whole suite."""

import os

# Before torch is imported, and inherited by the scripts that tests start. On matrices as small as the tests' a second
# thread only waits: on two busy cores `test_packed.py` takes 24 s with two threads, 7 s with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
