"""MkDocs hook: an API page for each public module, made from its docstrings.

A module is public if it has `__all__` and is at the top level or in a folder with `__init__.py`.
Programs are not (`--help` documents them), nor are the loaders.
"""

import ast
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOT_PUBLIC = {"demo", "hubconf", "package_loader", "setup", "tools"}


def public_modules() -> dict[str, str]:
    """Return the dotted names of the public modules, and the first line of each one's docstring."""
    modules = {}
    folders = sorted(path.parent for path in ROOT.glob("*/__init__.py"))
    for path in (path for folder in (ROOT, *folders) for path in sorted(folder.glob("*.py"))):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in NOT_PUBLIC or path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in assigned):
            modules[".".join(parts)] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return modules


def on_config(config: Any) -> Any:
    """Add the API reference to the navigation: top-level modules first, then folder by folder."""
    groups: dict[str, list[dict[str, str]]] = {}
    for name in public_modules():
        folder = name.partition(".")[0] + "/" if "." in name else "Top level"
        groups.setdefault(folder, []).append({name: f"api/{name}.md"})
    config.nav.append({"API reference": ["api/index.md", *({k: v} for k, v in groups.items())]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and the list of them to the index."""
    from mkdocs.structure.files import File

    modules = public_modules()
    pages = {
        name: f"# `{name}`\n\n::: {name}\n    options: {{show_root_heading: false}}\n"
        for name in modules
    }
    rows = "".join(f"| [`{name}`]({name}.md) | {text} |\n" for name, text in modules.items())
    index = files.get_file_from_path("api/index.md")
    files.remove(index)
    pages["index"] = f"{index.content_string}\n| module | content |\n|---|---|\n{rows}"
    for name, text in pages.items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files
