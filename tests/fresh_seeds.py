"""Seeds that are new in every run, for tests that compare two forms of the same thing."""

import os
import secrets

SEED = int(os.environ.get("RLMOP_TEST_SEED") or secrets.randbits(31))
"""Printed where a comparison fails; `RLMOP_TEST_SEED=<it>` repeats that run."""

REPEAT = f"repeat with RLMOP_TEST_SEED={SEED}"
