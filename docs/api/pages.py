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


def public_names() -> dict[str, str]:
    """Return the names that the package exports, and the dotted names of their modules."""
    modules = public_modules()
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in modules
        for alias in node.names
    }


def on_config(config: Any) -> Any:
    """Add the API reference to the navigation: modules of public names, then all the others."""
    public = dict.fromkeys(public_names().values())
    entries: list[Any] = ["api/index.md", *({name: f"api/{name}.md"} for name in public)]
    internals = [{name: f"api/{name}.md"} for name in public_modules() if name not in public]
    config.nav.append({"API reference": [*entries, {"Internals": internals}]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and to the index links to the public names and the internals."""
    from mkdocs.structure.files import File

    modules, names = public_modules(), public_names()
    pages = {
        name: f"# `{name}`\n\n::: {name}\n    options: {{show_root_heading: false}}\n"
        for name in modules
    }
    links = "".join(
        f"| [`{name}`]({module}.md#{module}.{name}) | [`{module}`]({module}.md) |\n"
        for name, module in names.items()
    )
    rows = "".join(
        f"    | [`{name}`]({name}.md) | {text} |\n"
        for name, text in modules.items()
        if name not in names.values()
    )
    index = files.get_file_from_path("api/index.md")
    files.remove(index)
    pages["index"] = (
        f"{index.content_string}\n| name | module |\n|---|---|\n{links}\n"
        f"## Internals\n\nThe parts that these are made of.\n\n"
        f'??? note "Modules"\n\n    | module | content |\n    |---|---|\n{rows}'
    )
    for name, text in pages.items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files
