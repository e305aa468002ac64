"""What holds for every test: small networks, so one thread each; set before torch is imported, for subprocesses too."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launcher import Launcher
from tests.migrations import read_once

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where a test has two threads, they do not spin
os.environ.pop("SECATEUR_CACHE", None)
# Else every process of the tests would compile all of secateur, and pytest rewrite all tests: 5 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 << 30:
    # Journals and files that are to outlive a loss of power wait for the disk: 2 to 8 ms each time.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    """What the imports made is there to stay: looking through it for garbage again and again takes a twentieth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded images of the tests are kept among their other files."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all processes of a session share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(autouse=True, scope="session")
def _traces(shared_folder: Path) -> None:
    """Traces that tests only use."""
    from tests.graphs import share_traces  # imports torch

    share_traces(shared_folder / "traces")


@pytest.fixture(autouse=True, scope="session")
def _migrations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alembic.util.load_python_file", read_once())
        yield


@pytest.fixture(autouse=True, scope="session")
def _moments() -> Iterator[None]:
    """Every search waits a tenth of a second for others that begin with it; one in the process of a test is alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.study.heartbeat.SETTLE", 0.01)
        yield


@pytest.fixture(autouse=True, scope="session")
def _forked() -> None:
    """What trains and scores for a test is forked from a process with the imports, which take a new one seconds.

    For users each is a new interpreter, so that their scripts need no main guard; so too where a test of
    test_retraining_pool.py retrains in a process of the launcher's.
    """
    from joblib.externals.loky.backend.context import set_start_method

    from search.training.parallel import _processes  # imports torch

    if (method := _processes().get_start_method()) == "forkserver":
        set_start_method(method, force=True)


@pytest.fixture(autouse=True, scope="session")
def _drawing() -> Iterator[None]:
    """One process draws all pictures of the tests: starting one takes longer than most pictures."""
    from search.review.drawing import one_drawing_process  # imports torch

    with one_drawing_process():
        yield


@pytest.fixture(scope="session")
def launcher(shared_folder: Path) -> Iterator[Launcher]:
    made = Launcher(shared_folder)
    yield made
    made.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds `data/` (CIFAR-10) and `weights/` (reference checkpoints); needed where CI=true."""
    folder = os.environ.get("SECATEUR_DATA")
    if folder is None and os.environ.get("CI"):
        pytest.fail("CI must set SECATEUR_DATA to the folder with data/ and weights/")
    if folder is None:
        pytest.skip("SECATEUR_DATA names no folder with data/ and weights/")
    return Path(folder)
