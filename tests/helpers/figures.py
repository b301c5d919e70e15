"""The figures that a module draws, for tests that look into them."""

from types import ModuleType
from typing import Any

import pytest


def collect_figures(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Any]:
    """Return a list that gets each figure that `module` asks for with `new_figure`."""
    drawn: list[Any] = []
    original: Any = vars(module)["new_figure"]

    def new_figure(*size: float) -> Any:
        drawn.append(original(*size))
        return drawn[-1]

    monkeypatch.setattr(module, "new_figure", new_figure)
    return drawn
