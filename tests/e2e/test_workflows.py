"""The workflows: their files fit GitHub's schema, and what their steps call is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.page_commands import ROOT, check, make_targets, programs

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(path: Path) -> list[dict]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_of_the_steps_are_there(path):
    called = [
        words
        for step in steps(path)
        for line in step.get("run", "").splitlines()
        for words in programs(line.split("  #")[0])
    ]
    assert called
    for words in called:
        if words[-1] == "--version":
            continue
        check(words)


def test_the_schema():
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_release_is_built_installed_and_published_in_this_order():
    path = ROOT / ".github" / "workflows" / "release.yml"
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    assert list(jobs) == ["build", "install", "publish"]
    assert (jobs["install"]["needs"], jobs["publish"]["needs"]) == ("build", "install")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}  # trusted publishing: no token is stored
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    passed_on = [step["with"] for job in jobs.values() for step in job["steps"] if "artifact" in step.get("uses", "")]
    assert {part["name"] for part in passed_on} == {"dist", "sbom"}


def test_what_make_runs_is_installed_by_it():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"dist", "sbom", "docs", "notebooks"} <= make_targets()
    modules = set(re.findall(r"\$\(BIN\)/python -m (\w+)", text))
    known = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert {name for name in modules if f'"{name}' not in known} == set()
