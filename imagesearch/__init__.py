"""The project: settings, addresses, the servers' entry points."""

import os

# The threads of OpenBLAS (numpy's) spin for 2^26 cycles after each product before they sleep, a core each, and take it
# from whoever searches next. Read when numpy is first imported; what a person has set stays.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "6")
