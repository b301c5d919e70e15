"""What the names of numbered images say: which belong together, and which are u and v of flow."""

from collections.abc import Iterable

__all__ = ["Groups", "flow_pairs", "group_by_prefix", "is_flow", "only_group", "parse_name"]

_ENDINGS = ("jpg", "jpeg", "png")
_FLOW_HALVES = (("x_", "y_"), ("u_", "v_"))
_MAX_NUMBER = 2**63 - 1
"""What an int64 holds."""

Groups = dict[str, dict[int, str]]
"""Names of files by number, by what is in front of it in lower case."""


def parse_name(name: str) -> tuple[str, int] | None:
    """Beginning and number of an image's name, None for other files."""
    stem, _, ending = name.rpartition(".")
    prefix = stem.rstrip("0123456789")
    if prefix == stem or name.startswith(".") or ending.lower() not in _ENDINGS:
        return None
    return prefix.lower(), int(stem[len(prefix) :])


def group_by_prefix(names: Iterable[str], where: str) -> Groups:
    """The numbered images among files, each prefix by itself."""
    groups: Groups = {}
    for name in names:
        parts = parse_name(name)
        if parts is None:
            continue
        prefix, number = parts
        if number > _MAX_NUMBER:
            raise ValueError(f"{where}: the number of {name} must be at most {_MAX_NUMBER}")
        other = groups.setdefault(prefix, {}).setdefault(number, name)
        if other != name:
            raise ValueError(f"{where}: {name} has the same number as {other}: remove one of them")
    return groups


def only_group(groups: Groups, where: str) -> dict[int, str]:
    """The images of the only prefix; {} if there is none."""
    if len(groups) > 1:
        kinds = ", ".join(f"{prefix}*" for prefix in sorted(groups))
        raise ValueError(f"{where}: must hold the images of one clip, but has several: {kinds}")
    return next(iter(groups.values()), {})


def _flow_pair(prefix: str) -> tuple[str, str] | None:
    """The prefixes of u and v, given that of either, None for other images."""
    beginning, half = prefix[:-2], prefix[-2:]
    if beginning[-1:].isalnum():
        return None
    for u, v in _FLOW_HALVES:
        if half in (u, v):
            return beginning + u, beginning + v
    return None


def flow_pairs(groups: Groups) -> dict[tuple[str, str], tuple[dict[int, str], dict[int, str]]]:
    """The images of u and v that lie side by side, by their prefixes."""
    pairs = sorted({pair for prefix in groups if (pair := _flow_pair(prefix))})
    return {(u, v): (groups.get(u, {}), groups.get(v, {})) for u, v in pairs}


def is_flow(prefix: str, groups: Groups) -> bool:
    """Whether images are u or v; cam_x_1.jpg is only where cam_y_ images are there as well."""
    pair = _flow_pair(prefix)
    known = prefix[:-2] in ("", "flow_")
    return pair is not None and (known or set(pair) <= groups.keys())
