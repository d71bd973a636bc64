"""The `entitysam` command.

A command is one module of this package with `add_arguments(parser)` and `run(arguments) -> exit code`, and one line in
`COMMANDS`. Its docstring becomes its help; only the module of the command that runs is imported.
"""

import argparse
import importlib
import re
import sys
import traceback
import warnings
from collections.abc import Sequence

COMMANDS = {
    "segment": "segment every entity of a video, a folder of images or a camera",
    "track": "track given detections or proposals of a video by their embeddings (MASA)",
    "segment-image": "segment every entity of photos, without training",
    "label": "name the entities of a result that is there",
    "demo": "segment the embedded clip and say where the pictures are",
    "download": "fetch the published weights and check them",
    "doctor": "report versions, devices, codecs, data sets and weights",
}
DESCRIPTION = "Segments and tracks every entity of a video, without prompts and without categories."
EPILOG = """examples:
  entitysam demo -o out/demo
  entitysam segment clip.mp4 -o out/clip --model vit-s
  entitysam segment --help
"""
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=.*")
STOPPED = 130  # what shells expect after Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Returns:
        0; 2 for bad input, options or files; 1 for anything that went wrong on the way; 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parse(argv)
    if not arguments.debug:
        warnings.simplefilter("ignore")
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("\nentitysam: stopped", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        expected = isinstance(error, ValueError | OSError)
        print(f"entitysam: error: {_one_line(error, expected)}", file=sys.stderr)
        return 2 if expected else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace with `run`, the command's function, and `overrides`, its key=value words."""
    parser = argparse.ArgumentParser("entitysam", description=DESCRIPTION, epilog=EPILOG, **_layout())
    parser.add_argument("--version", action="version", version=f"entitysam {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        if name == chosen:
            module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
            command = commands.add_parser(name, help=summary, description=module.__doc__, **_layout())
            command.add_argument("--debug", action="store_true", help="show where an error comes from")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
        else:
            commands.add_parser(name, help=summary)
    arguments, rest = parser.parse_known_args(argv)
    takes_overrides = getattr(arguments, "takes_overrides", False)
    unknown = [word for word in rest if not (takes_overrides and OVERRIDE.fullmatch(word))]
    if unknown:
        parser.error(f"unknown argument: {' '.join(unknown)}")
    arguments.overrides = rest
    return arguments


def _layout() -> dict:
    return {"formatter_class": argparse.RawDescriptionHelpFormatter}


def _version() -> str:
    from entitysam import __version__

    return __version__


def _one_line(error: Exception, expected: bool) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if expected else f"{type(error).__name__}: {text} (--debug shows where)"
