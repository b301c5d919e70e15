"""The library's own files: what there is, what it is called, and copies of it."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def source_files() -> list[Path]:
    """List the files of the library and its programs: at the top level, and in folders of ours."""
    folders = [REPOSITORY, *(path.parent for path in sorted(REPOSITORY.glob("*/__init__.py")))]
    return [
        path.relative_to(REPOSITORY) for folder in folders for path in sorted(folder.glob("*.py"))
    ]


def top_level_names() -> list[str]:
    """List what this repository's modules and folders of modules are called."""
    files = [path.stem for path in REPOSITORY.glob("*.py") if path.stem != "__init__"]
    folders = {path.parent.name for path in REPOSITORY.glob("*/*.py")}
    return sorted(name for name in {*files, *folders} if name.isidentifier())


def library_modules() -> list[str]:
    """List the dotted names of the modules that a clone and the package have."""
    return [
        ".".join(path.with_suffix("").parts)
        for path in source_files()
        if path.stem not in ("__init__", "hubconf", "setup")
    ]


TRIPLED = {
    "ops/consensus.py": "\n\nAverageConsensus.forward = lambda self, scores: scores.sum(dim=1)\n"
}
"""Another version of the code: with T = 3, TSN's and TSM's logits are three times as large."""


def copy_repository(folder: Path, appended: dict[str, str] | None = None) -> Path:
    """Copy the library into a folder, with code appended to some of its files."""
    for file in source_files():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        text = (REPOSITORY / file).read_text() + (appended or {}).get(str(file), "")
        (folder / file).write_text(text)
    return folder
