"""An installed wheel works from any folder: configs, prompts and the tiny weights travel with it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import entitysam

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


def test_the_version_has_one_place(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    assert f"\nVersion: {entitysam.__version__}\n" in metadata
    assert wheel.name.startswith(f"entitysam-{entitysam.__version__}-")
    written = [
        path for path in (ROOT / "pyproject.toml", ROOT / "setup.py") if entitysam.__version__ in path.read_text()
    ]
    assert written == []


@pytest.mark.slow
def test_wheel_and_source_distribution_pass_twine(wheel, tmp_path):
    """The wheel that is built from the source distribution has the same files as that of the repository."""
    pytest.importorskip("twine")
    source = tmp_path / "source"
    source.mkdir()
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        if not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(ROOT / name)
    build = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel, archive], check=True)
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    build = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=unpacked, check=True, capture_output=True)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {name: first.getinfo(name).CRC for name in first.namelist() if not name.endswith("RECORD")} == {
            name: second.getinfo(name).CRC for name in second.namelist() if not name.endswith("RECORD")
        }


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
    script = installed / "bin" / "entitysam"
    done = subprocess.run(
        [sys.executable, script, "--version"], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"entitysam {entitysam.__version__}\n"
