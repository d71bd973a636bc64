"""Sphinx: the site of `make docs`. The source folder is the repository, so that links between its pages work everywhere."""

import io
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path

import entitysam
from entitysam import cli

ROOT = Path(__file__).resolve().parents[1]

project = "entitysam"
copyright = "the EntitySAM authors, Apache-2.0"
version = release = entitysam.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.apidoc", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "datasets/README.md", "checkpoints/*.md"]
exclude_patterns = ["**/.ipynb_checkpoints"]
nb_execution_mode = "off"  # `make notebooks` executes them; their outputs are small and committed

html_theme = "furo"
html_title = f"entitysam {release}"
html_static_path: list[str] = []
# Fonts and scripts come with the site: it works offline.
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
suppress_warnings = ["autodoc.mocked_object", "ref.python"]  # errors are importable from two places

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
OPTIONAL = (
    "detectron2",
    "segment_anything",
    "ray",
    "openai",
    "open_clip",
    "onnxruntime",
    "supervision",
    "rerun",
    "fastapi",
)
autodoc_mock_imports = [name for name in OPTIONAL if find_spec(name) is None]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
apidoc_modules = [
    {
        "path": "../entitysam",
        "destination": "docs/api",
        "separate_modules": True,
        "module_first": True,
        "exclude_patterns": ["**/export/example.py", "**/adapters/**", "**/serve/**", "**/cli/**"],
    }
]


def write_cli_page(_app: object) -> None:
    """The reference of the command line, made from its parser."""
    lines = ["# Command line", "", "Made from the parser; `entitysam COMMAND --help` prints the same.", ""]
    for command in ["", *cli.COMMANDS]:
        text = io.StringIO()
        with redirect_stdout(text), suppress(SystemExit):
            cli.parse([command, "--help"] if command else ["--help"])
        lines += [f"## entitysam {command}".rstrip(), "", "```text", text.getvalue().rstrip(), "```", ""]
    page = ROOT / "docs" / "api" / "cli.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join(lines), encoding="utf-8")


def setup(app):
    app.connect("config-inited", lambda app, _config: write_cli_page(app))
