"""The weights of a file: checked, and cleaned of the names of wrappers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from checkpoints.errors import CheckpointError, list_names, show, type_name
from checkpoints.values import is_dense

__all__ = ["clean_state_dict"]

_MAX_SHARING = 4  # times that memory may be used; each tensor that shares it gets its own
_WRAPPERS = ("_orig_mod", "module", "model")
"""What wrappers add to names: torch.compile; DataParallel, DistributedDataParallel and
AveragedModel; modules of Lightning."""
_ROOTS = ("base_model.", "new_fc.", "fc_verb.", "fc_noun.", "consensus.")  # of our own names


def clean_state_dict(entry: Any, *, strict: bool = False) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of a file under the network's own names, and what was dropped.

    The components `_orig_mod`, `module` and `model` are dropped wherever they stand in a name.
    Where there is a network of this library, what else the module around it holds is left out,
    such as the weights of a loss or the counter `n_averaged` of an AveragedModel.

    Args:
        entry: what the file holds as `state_dict`.
        strict: whether nothing but the network is expected where its names have no wrapper: what
            else there is stays, to be refused where weights are put into the model.

    Raises:
        CheckpointError: if it holds anything but dense tensors under names, if these claim more
            memory than they share, or if two of them get the same name.
    """
    _require_tensors(entry)
    parts = {name: name.split(".") for name in entry}
    cleaned = {
        name: ".".join([*(part for part in place if part not in _WRAPPERS), leaf])
        for name, (*place, leaf) in parts.items()
    }
    ours = {name: clean for name, clean in cleaned.items() if clean.startswith(_ROOTS)}
    is_around = bool(ours) and not (strict and all(name == ours[name] for name in ours))
    original: dict[str, str] = {}
    for name, clean in cleaned.items():
        if clean == "n_averaged" or (is_around and name not in ours):
            continue
        if clean in original:
            raise CheckpointError(
                f"state_dict holds two weights for {show(clean)}: {show(original[clean])} and "
                f"{show(name)}; remove those that are not wanted"
            )
        original[clean] = name
    dropped = []
    renamed = [name for clean, name in original.items() if name != clean]
    if renamed:
        prefixes = [f"'{w}.'" for w in _WRAPPERS if any(w in parts[name] for name in renamed)]
        count = f"{len(renamed)} of {len(original)} names"
        dropped.append(f"removed the prefixes {' and '.join(prefixes)} from {count}")
    if left_out := entry.keys() - original.values():
        dropped.append(f"left out what is not the model's: {list_names(left_out)}")
    message = ["; ".join(dropped)] if dropped else []
    return {clean: entry[name] for clean, name in original.items()}, message


def _require_tensors(entry: Any) -> None:
    """Refuse what holds anything but dense tensors under names that have the memory they claim."""
    if not isinstance(entry, Mapping) or not entry:
        raise CheckpointError(f"state_dict must be a dictionary of tensors, got {type_name(entry)}")
    for name, value in entry.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"state_dict must hold tensors under names, got {type_name(value)} under "
                f"{show(name)}"
            )
        if not is_dense(value) or value.device.type != "cpu" or value.numel() == 0:
            kind = f"{'quantized, ' * value.is_quantized}{value.layout}, on the {value.device}"
            raise CheckpointError(
                f"state_dict must hold dense tensors with values, got {show(value)} that is {kind} "
                f"under {show(name)}"
            )
    claimed = sum(value.nbytes for value in entry.values())
    storages = [value.untyped_storage() for value in entry.values()]
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if claimed > _MAX_SHARING * held:
        raise CheckpointError(
            f"state_dict claims {claimed:,} bytes of weights, but they share {held:,} in memory"
        )
