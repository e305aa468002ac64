"""What holds for every test: small networks, so one thread each; set before torch is imported, for subprocesses too."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
