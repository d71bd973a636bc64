"""Converts a result to the format of another program, or its file to a result.

PATH is, with --to, a result folder of 'entitysam segment', 'track' or 'label', or an output of 'entitysam bulk'; with --from,
what the other program wrote. docs/FORMATS.md says what each format cannot hold.

examples:
  entitysam convert out/clip --to youtube-vis -o clip.json
  entitysam convert out/clip --to davis -o davis/clip
  entitysam convert --from davis davis/clip -o out/corrected
  entitysam convert --list
"""

import argparse
from pathlib import Path

from entitysam.cli.shared.arguments import output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, nargs="?", help="a result, or with --from a file or folder")
    ways = parser.add_mutually_exclusive_group(required=True)
    ways.add_argument("--to", metavar="FORMAT", help="write this format")
    ways.add_argument("--from", dest="origin", metavar="FORMAT", help="read this format")
    ways.add_argument("--list", action="store_true", help="print the formats and what they lose")
    parser.add_argument("-o", "--out", type=output_folder, metavar="PATH", help="what is written; must not exist")
    parser.add_argument("--tolerance", type=float, metavar="PIXELS",
                        help="polygons: simpler ones, which may differ from the mask by so much (default: 0, exact)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from entitysam.errors import ConfigError
    from entitysam.exchange import FORMATS, export_result, import_result

    if arguments.list:
        for name, kind in FORMATS.items():
            direction = "" if kind.imports else " (only --to)"
            print(f"{name:<14}{kind.title}{direction}; loses: {kind.loses}")
        return 0
    if arguments.path is None or arguments.out is None:
        raise ConfigError("a PATH and an output are needed: entitysam convert PATH --to FORMAT -o OUT")
    options = {} if arguments.tolerance is None else {"tolerance": arguments.tolerance}
    if arguments.tolerance is not None and not 0 <= arguments.tolerance <= 100:
        raise ConfigError(f"--tolerance must be in 0..100 pixels, not {arguments.tolerance:g}")
    if arguments.to:
        written = export_result(arguments.path, arguments.to, arguments.out, **options)
    else:
        written = import_result(arguments.path, arguments.origin, arguments.out)
    print(written)
    return 0
