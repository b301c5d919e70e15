"""What files of PyTorch Lightning hold beside weights, read without Lightning or omegaconf.

Lightning writes its hyper-parameters as the objects that they are, an omegaconf tree or a
dictionary of its own kind, and names its callbacks by their classes. While a file is read, what is
below stands in for those: it collects state, and runs nothing.
"""

from typing import Any

__all__ = ["LIGHTNING_NAMES", "ConfigNode"]


class ConfigNode:
    """Stands for any node of an omegaconf tree: a dictionary, a list or a value.

    Attributes:
        content: what the node holds: nodes in a dictionary or a list, or a plain value.
    """

    content: Any = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Parents and types, which a node holds too, are not wanted.
        self.content = state["_content"] if "_content" in state else state["_val"]


class _Unread:
    """Stands for what is of no interest, and keeps nothing of it."""

    def __setstate__(self, state: Any) -> None:
        pass


def _empty_dictionary(*arguments: object) -> dict[Any, Any]:
    """Stands for `collections.defaultdict`, whose factory would be code from the file."""
    return {}


_NODES = (
    "dictconfig.DictConfig",
    "listconfig.ListConfig",
    *(
        f"nodes.{kind}Node"
        for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String")
    ),
)
_TYPES = (
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str")),
    *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Union")),
)
"""Types that omegaconf notes of its nodes."""
_PACKAGES = ("pytorch_lightning", "lightning.pytorch")

LIGHTNING_NAMES: dict[str, Any] = {
    **{f"omegaconf.{name}": ConfigNode for name in _NODES},
    "omegaconf.base.Metadata": _Unread,
    "omegaconf.base.ContainerMetadata": _Unread,
    "collections.defaultdict": _empty_dictionary,
    # Kept as their names, since nothing is to be made of them.
    **{name: name for name in _TYPES},
    **{
        name: name
        for package in _PACKAGES
        for name in (
            f"{package}.callbacks.early_stopping.EarlyStopping",
            f"{package}.callbacks.model_checkpoint.ModelCheckpoint",
        )
    },
    # A dictionary whose entries are attributes too.
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
    "lightning.pytorch.utilities.parsing.AttributeDict": dict,
    "lightning_fabric.utilities.data.AttributeDict": dict,
    "lightning.fabric.utilities.data.AttributeDict": dict,
}
"""Name in a file -> what it becomes."""
