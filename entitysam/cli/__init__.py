"""The `entitysam` command.

A command is one module of this package with `add_arguments(parser)` and `run(arguments) -> exit code`, and one line in
`COMMANDS`. Its docstring is its help. Only the module of the command that runs is imported.
"""

import argparse
import importlib
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

COMMANDS = {
    "segment": "segment every entity of a video, a folder of images or a camera",
    "bulk": "segment a whole collection of videos into one Parquet data set",
    "track": "track given detections or proposals of a video by their embeddings (MASA)",
    "segment-image": "segment every entity of photos, without training",
    "label": "name the entities of an existing result",
    "serve": "open a page to look at results, to correct and to export them",
    "convert": "convert a result to the format of another program, or back",
    "demo": "segment a synthetic clip and print where the images are",
    "export": "export a model to ONNX or as PyTorch programs",
    "download": "download the published weights and check them",
    "doctor": "report versions, devices, codecs, data sets and weights",
}
DESCRIPTION = "Segments and tracks every entity of a video, without prompts and without categories."
EPILOG = """examples:
  entitysam demo -o out/demo
  entitysam segment clip.mp4 -o out/clip
  entitysam segment --help
"""
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=.*")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Returns:
        0; 2 for bad input, options or files; 1 for any other error; 130 after Ctrl-C, 143 after SIGTERM.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parse(argv)
    if not arguments.debug:
        warnings.simplefilter("ignore")
    try:
        with _sigterm_interrupts():
            return arguments.run(arguments)
    except KeyboardInterrupt as stop:
        print("\nentitysam: stopped", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)  # as shells report it
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        expected = isinstance(error, ValueError | OSError)
        print(f"entitysam: error: {_one_line(error, expected)}", file=sys.stderr)
        return 2 if expected else 1


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM clean up as Ctrl-C does. Signal handlers can be set in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace with `run`, the command's function, and `overrides`, its key=value arguments."""
    _Parser.hint = _hint(argv)
    parser = _Parser("entitysam", description=DESCRIPTION, epilog=EPILOG, **_layout())
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


class _Parser(argparse.ArgumentParser):
    """Adds `hint` to its errors; a class attribute, because argparse creates the parsers of the commands itself."""

    hint = ""

    def error(self, message: str) -> NoReturn:
        super().error(message + self.hint)


def _hint(argv: Sequence[str]) -> str:
    """What to do about a file whose name looks like an option; "" where there is none."""
    file = next((word for word in argv if word.startswith("-") and os.path.exists(word)), None)
    return f" (write ./{file} for the file of that name, or put it last, after --)" if file else ""


def _layout() -> dict:
    return {"formatter_class": argparse.RawDescriptionHelpFormatter}


def _version() -> str:
    from entitysam import __version__

    return __version__


def _one_line(error: Exception, expected: bool) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if expected else f"{type(error).__name__}: {text} (--debug shows where)"
