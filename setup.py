"""Packaging of entitysam. `configs/` and the tiny weights live at the top of the repository and travel inside the wheel."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "entitysam" / "__init__.py").read_text(encoding="utf-8"))[1]
# Top-level folders an installed wheel needs, copied below the package; entitysam/config.py finds both places.
SHIPPED = {"configs": "*.*", "checkpoints": "*_tiny*"}


class BuildWithData(build_py):
    """Copies configs, prompt files and the tiny weights into the built package."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for folder, pattern in SHIPPED.items():
            for source in sorted((ROOT / folder).rglob(pattern)):
                target = Path(self.build_lib) / "entitysam" / folder / source.relative_to(ROOT / folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


INSTALL = [
    "torch>=2.5",
    "torchvision>=0.20",
    "timm>=1.0.21",
    "numpy>=1.26",
    "scipy>=1.11",
    "pillow>=11",
    "hydra-core>=1.3.2",
    "omegaconf>=2.3",
    "fvcore>=0.1.5.post20221221",
    "av>=18.1; python_version >= '3.11'",
    "av>=17.1; python_version < '3.11'",  # the last for Python 3.10; FFmpeg in it can crash on a damaged VP9 stream
    "opencv-python-headless>=4.8",
    "pycocotools>=2.0.7",
    "safetensors>=0.4.3",
    "huggingface_hub>=0.24",
    "rich>=13",
    "matplotlib>=3.8",
    "scikit-image>=0.22",
    "natsort>=8",
    "pydantic>=2.7",
]
EXTRAS = {
    "train": ["tensorboard>=2.16"],
    "wandb": ["wandb>=0.17"],
    "label": ["openai>=1.56", "open_clip_torch>=2.26"],
    "bulk": ["pyarrow>=18", "fsspec[http]>=2024.2"],
    "ray": ["ray[data]>=2.44", "pyarrow>=18", "fsspec[http]>=2024.2"],
    "formats": ["supervision>=0.25", "rerun-sdk>=0.23", "defusedxml>=0.7"],
    "sam": ["segment-anything>=1.0"],
    "videomt": ["transformers>=5.4"],
    "export": ["onnx>=1.17", "onnxscript>=0.3", "onnxruntime>=1.20"],
    "openvino": ["openvino>=2025.0"],
    "serve": ["fastapi>=0.115", "uvicorn>=0.30", "defusedxml>=0.7"],
    "notebooks": ["nbclient>=0.10", "ipykernel>=6.29", "pandas>=2.2"],
    "docs": ["sphinx>=8.2 ; python_version >= '3.11'", "myst-nb>=1.3", "furo>=2024.8", "sphinx-copybutton>=0.5"],
    "dev": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.8",
        "ruff>=0.6",
        "mypy>=1.11",
        "import-linter>=2.0",
        "pre-commit>=3.8",
        "build>=1.2",
        "pip>=23",
        "twine>=6.1",
        "check-jsonschema>=0.31",
        "polars>=1",
        "psutil>=5.9",
        "playwright>=1.45",
        "axe-playwright-python>=0.1.4",
    ],
}

setup(
    name="entitysam",
    version=VERSION,
    description="Segment and track every entity of a video: EntitySAM, E-SAM and MASA.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["entitysam", "entitysam.*"]),
    package_data={"entitysam": ["py.typed", "serve/static/*"]},
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["entitysam = entitysam.cli:main"]},
    cmdclass={"build_py": BuildWithData},
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
