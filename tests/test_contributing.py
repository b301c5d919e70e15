"""CONTRIBUTING.md's links, and that a commit and CI check the same as `make lint` and `.ci/run`."""

import re
from pathlib import Path

from helpers.repository import REPOSITORY


def read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)", read("CONTRIBUTING.md"))
    assert links
    assert not [link for link in links if "://" not in link and not Path(REPOSITORY, link).exists()]


def test_a_commit_is_checked_as_make_lint_checks() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.M)
    assert recipe
    commands = recipe[1].replace("$(BIN)", ".venv/bin").split("\n\t")
    hooks = re.findall(r"^ +entry: (.*)$", read(".pre-commit-config.yaml"), re.M)
    assert hooks == [command.strip() for command in commands]


def test_github_runs_the_script() -> None:
    assert re.findall(r"^ +- run: (.*)$", read(".github/workflows/ci.yml"), re.M) == [".ci/run"]
