"""Measures one part of the project and prints a table; `docs/BENCHMARKS.md` keeps the figures.

Example: python tools/benchmark.py model --model vits --image-size 256 --frames 12
"""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import benchmarks


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = result.add_subparsers(dest="command", required=True)
    for module_info in pkgutil.iter_modules([str(Path(benchmarks.__file__).parent)]):
        module = importlib.import_module(f"benchmarks.{module_info.name}")
        if not hasattr(module, "add_arguments"):
            continue
        command = commands.add_parser(
            module_info.name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return result


def main() -> None:
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
