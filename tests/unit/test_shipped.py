"""Shipped and published weights: names, and arguments that are refused before torch is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from entitysam.errors import CheckpointError, ConfigError
from entitysam.shipped import check_model_name, default_weights, fetch_weights


def test_local_weights_are_not_downloaded(tmp_path):
    (tmp_path / "entitysam_vits.pth").touch()
    assert fetch_weights("vits", tmp_path) == tmp_path / "entitysam_vits.pth"


def test_names():
    assert check_model_name("vit-l") == "vitl"
    with pytest.raises(ConfigError, match=r"unknown model 'huge'; known: tiny, tiny_scratch, vitl, vits"):
        check_model_name("huge")
    with pytest.raises(ConfigError, match=r"unknown model 'masa'; known: masa_"):
        check_model_name("masa")
    with pytest.raises(CheckpointError, match="no published weights for 'tiny'; there are: vits, vitl"):
        fetch_weights("tiny")
    assert default_weights("tiny").name == "entitysam_tiny.safetensors"


REFUSED = [
    ("segment", "nowhere.mp4"),
    ("segment", "IMAGE", "--model", "no.pth"),
    ("segment", "IMAGE", "--model", "vit-xxl"),
    ("segment", "IMAGE", "--device", "toaster"),
    ("segment", "IMAGE", "--image-size", "100"),
    ("segment", "IMAGE", "--threshold", "1.5"),
    ("segment", "IMAGE", "--stride", "0"),
    ("segment", "IMAGE", "speed=3"),
    ("segment", "IMAGE", "inference.warmup=3"),
    ("track", "IMAGE", "--detections", "nowhere.json"),
    ("track", "IMAGE", "--weights", "nowhere.pt"),
    ("segment-image", "IMAGE", "--weights", "nowhere.pt"),
    ("label", "nowhere", "--labels", "dog"),
    ("download", "vit-m"),
    ("--help",),
]


def test_a_refused_argument_is_refused_before_torch_is_imported(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "IMAGE.png")
    commands = [[word.replace("IMAGE", str(tmp_path / "IMAGE.png")) for word in words] for words in REFUSED]
    for command in commands:
        if command[0] in ("segment", "track", "segment-image"):
            command += ["-o", str(tmp_path / "out")]
    program = (
        "import json, sys\nfrom entitysam.cli import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try:\n        code = main(command)\n    except SystemExit as error:\n        code = error.code\n"
        "    print('\\nRESULT', 'torch' in sys.modules, code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)], capture_output=True, text=True, cwd=tmp_path
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    for words, result in zip(REFUSED, results, strict=True):
        assert result == f"RESULT False {0 if words == ('--help',) else 2}", (words, done.stderr)
    assert not (tmp_path / "out").exists()


def test_segment_imports_what_it_needs():
    """Beside torch and timm: neither MASA nor torchvision's operators nor torch._dynamo, where timm does without them."""
    program = (
        "import sys, torch, timm\nbefore = set(sys.modules)\n"
        "import entitysam, entitysam.cli.shared.results\n"
        "entitysam.load_model('tiny', 'cpu')\n"
        "heavy = ('entitysam.masa', 'scipy.optimize', 'entitysam.esam', 'torchvision', 'torch._dynamo', 'matplotlib', 'skimage')\n"
        "print([name for name in sys.modules if name not in before and name.startswith(heavy)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]", done.stderr
