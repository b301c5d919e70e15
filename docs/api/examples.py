"""Griffe extension: the section `Example:` of a docstring is code, as `Examples:` is."""

import re
from typing import Any

from griffe import Extension


class ExampleSections(Extension):  # type: ignore[misc]  # griffe is not installed beside mypy
    """Renames the sections before they are parsed; Griffe knows the plural alone."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rename the section in one docstring."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
