"""An installed wheel works from any folder: configs, prompts and the tiny weights travel with it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import entitysam
from entitysam.config import load_config, shipped_folder
print(entitysam.__file__)
print(entitysam.build_model("tiny", image_size=64).num_entities)
print(load_config("entitysam_vits_stage1").model.num_entities)
print((shipped_folder("checkpoints") / "entitysam_tiny.safetensors").is_file())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what the repository would hand out, so that no build folder appears in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("entitysam", "configs", "checkpoints", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-c", "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def shipped():
    """What has to travel, as named inside the wheel."""
    files = [path for path in (ROOT / "configs").rglob("*.*") if path.is_file()]
    files += (ROOT / "checkpoints").glob("*_tiny*")
    return {f"entitysam/{path.relative_to(ROOT).as_posix()}" for path in files}


def test_everything_is_inside(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert shipped() <= names
    assert "entitysam/configs/model/tiny.yaml" in names
    assert "entitysam/py.typed" in names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "entitysam").rglob("*.py")}
    assert modules <= names
    assert not any(name.startswith(("tests/", "tools/")) for name in names)


def test_it_works_from_any_folder(wheel, tmp_path):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--no-deps",
        "--no-index",
        "--target",
        installed,
        wheel,
    ]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    module, tiny_entities, vits_entities, weights = done.stdout.split("\n")[:4]
    assert Path(module).is_relative_to(installed)
    assert (tiny_entities, vits_entities) == ("36", "50")
    assert weights == str((ROOT / "checkpoints" / "entitysam_tiny.safetensors").is_file())
    assert list(elsewhere.iterdir()) == []
    assert (installed / "bin" / "entitysam").is_file()
