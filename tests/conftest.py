"""Fixtures and settings that several test files share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Read when torch is imported, here and in the processes that tests start. Pictures are small:
# threads would mostly wait for one another, the more on busy machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# A shell ignores Ctrl-C in what it runs as `make test &`, and so would programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("quick", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=300)
settings.load_profile("quick")  # another one with --hypothesis-profile

REPOSITORY = Path(__file__).resolve().parent.parent


class ClonesFolder:
    """The folder above, whose `__init__.py` pytest would import under the folder's name."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Dir | None:
        return pytest.Dir.from_parent(parent, path=path) if path == REPOSITORY else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ClonesFolder())


@pytest.fixture(scope="session")
def epic_test_data() -> Path:
    """Folder with real clips (`clips/`) and label files (`annotations/`), where there is one."""
    folder = os.environ.get("EPIC_TEST_DATA")
    if not folder:
        pytest.skip("EPIC_TEST_DATA is unset: no real clips and label files")
    return Path(folder)


@pytest.fixture(autouse=True)
def no_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not see where their reader's own weights lie."""
    monkeypatch.delenv("EPIC_MODELS_DIR", raising=False)
    monkeypatch.delenv("EPIC_MODELS_URL", raising=False)


@pytest.fixture
def six_frames() -> torch.Tensor:
    """Frames (6, 3, 4, 4), each of one colour: its index."""
    return torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 4, 4)


@pytest.fixture(scope="session")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with 12 clips for training and 6 for validation, of six classes."""
    from data.synthetic_actions import make_actions

    folder = tmp_path_factory.mktemp("actions")
    return make_actions(folder, train_count=2, validation_count=1)
