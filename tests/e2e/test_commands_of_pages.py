"""Every command on every page: its arguments are those of the program, and it runs, unless the page says what it needs.

A block without a marker is run as it stands, in the order of the page. `<!-- needs: weights, data -->` in front of a block says that
it cannot be run here; its commands are parsed all the same.
"""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.page_commands import KNOWN_NEEDS, ROOT, blocks, check, pages, programs
from support.processes import finish, forked

import entitysam.cli
from entitysam.data.synthetic.render import demo_clip
from entitysam.io.writers.video import VideoWriter
from entitysam.registry import EVALUATORS, METHODS

INLINE = re.compile(r"`((?:entitysam|python tools/\w+\.py) [\w-]+ [^`]+|make [a-z-]+)`")
PAGES = {str(page.relative_to(ROOT)): page for page in pages()}
HEIGHT, WIDTH, FRAMES = 54, 96, 4
# What makes a command shorter here than on the page: options that are added to it.
SHORTER = {
    "python tools/prepare_data.py synthetic --long": "--frames 12 --size 96x64 --workers 1",
    "python tools/prepare_data.py synthetic": "--images 8 --val-images 2 --train-videos 2 --train-frames 3 --videos 2 --frames 4 --size 96x64 "
    "--image-size 96x64 --workers 1",
    "python tools/train_net.py": "optim.max_iters=2 optim.warmup_iters=1 train.batch_size=2 train.clips_per_forward=1 train.device=cpu "
    "data.num_workers=0",
    "python tools/eval_net.py --compare": "",
    "python tools/benchmark.py bulk --generate": "--videos 2 --frames 2",
    "python tools/eval_net.py": "--limit-videos 1 --device cpu",
    "entitysam demo": "--frames 4",
    "entitysam export": "--image-size 64",
}
# Commands that other tests or the workflows run.
ELSEWHERE = ("make install", "make test", "make docs", "make test-slow", "make test-floor", "make notebooks", "make sbom", "pip install", "pip download")  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_arguments_are_those_of_the_programs(name):
    faults = []
    for block in blocks(PAGES[name]):
        assert block.needs <= KNOWN_NEEDS, f"{name}:{block.line}: {block.needs - KNOWN_NEEDS}"
        for command in block.commands():
            faults += fault_of(command, f"{name}:{block.line}")
    for command in INLINE.findall(PAGES[name].read_text(encoding="utf-8")):
        if not re.search(r"\.\.\.|\b[A-Z]+\b|\[", command):  # N, COMMAND: placeholders
            faults += fault_of(command, name)
    assert not faults, "\n".join(faults)


def fault_of(command, where):
    try:
        for words in programs(command):
            check(words)
    except (SystemExit, ValueError, AssertionError) as error:
        if isinstance(error, SystemExit) and not error.code:  # --help
            return []
        return [f"{where}: {command}: {error}"]
    return []


def test_a_renamed_option_is_found():
    assert fault_of("entitysam segment clip.mp4 --fsat 2", "here")
    assert fault_of("python tools/train_net.py --config configs/tiny_stage1.yaml optim.leraning_rate=1", "here")
    assert fault_of("make documentation", "here")
    assert not fault_of("ffmpeg -i clip.mp4 -f matroska - | entitysam segment -", "here")


def runnable(name):
    found = [command for block in blocks(PAGES[name]) if not block.needs for command in block.commands()]
    return [command for command in found if not command.startswith(ELSEWHERE)]


@pytest.fixture
def folder(tmp_path):
    """What the pages expect to be there: a clone, a clip, photos, detections, a small synthetic set."""
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "checkpoints").mkdir()
    for path in (ROOT / "checkpoints").glob("*_tiny.safetensors"):
        shutil.copy(path, tmp_path / "checkpoints")
    frames = [np.array(Image.fromarray(frame).resize((WIDTH, HEIGHT))) for frame in demo_clip(FRAMES)[0]]
    (tmp_path / "videos").mkdir()
    (tmp_path / "frames").mkdir()
    for name in ("clip.mp4", "hours.mp4", "crowd.mp4", "videos/a.mp4"):
        with VideoWriter(tmp_path / name, WIDTH, HEIGHT, 8.0) as video:
            for index, frame in enumerate(frames):
                video.add(frame, index / 8)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{index}.jpg")
    Image.fromarray(frames[0]).save(tmp_path / "photo.jpg")
    found = [
        {"image_id": index, "category_id": 1, "bbox": [10 + index, 10, 20, 20], "score": 0.9} for index in range(FRAMES)
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    (tmp_path / "list.txt").write_text("videos/a.mp4\n")
    pq.write_table(pa.table({"path": ["videos/a.mp4"], "start": [0.0], "end": [0.4]}), tmp_path / "manifest.parquet")
    run("python tools/prepare_data.py synthetic --out datasets/synthetic", tmp_path)
    return tmp_path


def run(command, folder):
    """Runs a line of a page, shortened: in a fork of this process where it is one call of one program, else by a shell."""
    program = command.removeprefix("OMP_NUM_THREADS=1 ")
    extra = next((words for start, words in SHORTER.items() if program.startswith(start)), "")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
    }
    line, log = f"{command} {extra}", folder / "log.txt"
    if command.startswith("entitysam serve"):
        serve(command, folder, environment)
    elif re.match(r"(OMP_NUM_THREADS=1 )?(entitysam|python tools/)", line) and " | " not in line:
        (words,) = programs(line)
        assert finish(forked(lambda: call(words, folder, log))) == 0, f"{line}\n{log.read_text()[-3000:]}"
    else:
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def call(words, folder, log):
    """The program's `main` in the folder of the page."""
    os.chdir(folder)
    os.environ["HOME"] = str(folder)
    if words[0] == "entitysam":
        main, sys.argv = entitysam.cli.main, words
    else:
        main, sys.argv = importlib.import_module(Path(words[1]).stem).main, words[1:]
    with open(log, "w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            return main() or 0
        except SystemExit as ended:
            print(ended.code, file=file)
            return 1 if isinstance(ended.code, str) else ended.code or 0
        except BaseException:
            traceback.print_exc(file=file)
            return 1


def serve(command, folder, environment):
    """Starts the page and ends it by Ctrl-C after it has said its address."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command} --port 0"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert any("http://127.0.0.1" in line for line in process.stdout), command
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name in PAGES if runnable(name)])
def test_commands_run(name, folder, monkeypatch):
    for package in ("entitysam.evaluation", "entitysam.engine.methods"):  # they fill the registries once
        importlib.import_module(package)
    if name == "docs/EXTEND.md":  # its parts are registered here, as if they stood in the package
        for registry in (EVALUATORS, METHODS):
            monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))
        for block in blocks(PAGES[name]):
            if block.language == "python":
                exec(compile(block.text(), name, "exec"), {"__name__": "extended"})
    for command in runnable(name):
        run(command.replace("make demo", "entitysam demo -o out/demo"), folder)
        if command.endswith("output_dir=output/first"):
            assert (folder / "output/first/model_final.pt").is_file()


def test_make_demo_is_what_stands_in_for_it():
    assert "\ndemo: install\n\t$(BIN)/entitysam demo -o out/demo\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
