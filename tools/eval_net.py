"""Evaluates a model, saved predictions or a baseline on a benchmark; EVAL.md has every command.

Examples:
  python tools/eval_net.py --weights checkpoints/entitysam_tiny.safetensors --config configs/eval/synthetic.yaml
  python tools/eval_net.py --weights model_0009999.pth --config configs/eval/vipseg.yaml --num-gpus 8 model=vits
  python tools/eval_net.py --predictions output/eval_vipseg --config configs/eval/vipseg.yaml output_dir=output/again
  python tools/eval_net.py --baseline grid:cells=6 --config configs/eval/vipseg.yaml output_dir=output/grid
  python tools/eval_net.py --compare output/grid output/eval_vipseg --plot compared.png
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from entitysam.engine.evaluate.run import RunOptions


def main() -> None:
    arguments = parser().parse_intermixed_args()
    try:
        if arguments.compare:
            show_comparison(*arguments.compare, arguments.plot)
            return
        from entitysam import distributed
        from entitysam.config import load_config, to_dict, to_yaml

        config = load_config(arguments.config, arguments.overrides)
        if arguments.print_config:
            print(to_yaml(config), end="")
            return
        distributed.launch(worker, arguments.num_gpus, (to_dict(config), read_options(arguments)))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--config", default="eval/vipseg", help="a YAML file, or a name below configs/ (eval/vipseg)")
    what = words.add_mutually_exclusive_group()
    what.add_argument("--predictions", default="", metavar="DIR", help="evaluate saved predictions")
    what.add_argument(
        "--baseline", default="", help="whole_frame, grid:cells=K, per_frame:min_iou=X (with --weights), esam"
    )
    what.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="print two results side by side, worst videos first"
    )
    words.add_argument(
        "--weights", default="", help="weight file, or 'random'; model=NAME where it has no config inside"
    )
    words.add_argument(
        "--num-gpus", type=positive, default=1, metavar="N", help="processes on this machine (on a CPU too)"
    )
    words.add_argument("--resume", action="store_true", help="skip the videos that an interrupted run finished")
    words.add_argument("--limit-videos", type=positive, metavar="K", help="only the first K videos")
    words.add_argument(
        "--save-predictions", action=argparse.BooleanOptionalAction, default=True, help="keep them after the report"
    )
    words.add_argument(
        "--worst", type=int, default=6, metavar="K", help="videos on the contact sheet (6; 0 = no sheet)"
    )
    words.add_argument("--plot", metavar="FILE", help="with --compare: a scatter plot of the videos, PNG")
    words.add_argument("--device", default="auto", help="cuda, cpu, ... (whichever is there)")
    words.add_argument("--quiet", action="store_true", help="no progress bar")
    words.add_argument("--print-config", action="store_true", help="print the composed config and leave")
    words.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, e.g. output_dir=out")
    return words


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is below 1")
    return number


def read_options(arguments: argparse.Namespace) -> "RunOptions":
    from entitysam.engine.evaluate.run import RunOptions

    return RunOptions(
        weights=arguments.weights,
        predictions=arguments.predictions,
        baseline=arguments.baseline,
        resume=arguments.resume,
        limit_videos=arguments.limit_videos,
        save_predictions=arguments.save_predictions,
        worst=arguments.worst,
        device=arguments.device,
        quiet=arguments.quiet,
    )


def worker(config: dict, options: "RunOptions") -> None:
    from entitysam.engine.evaluate.report.result import TABLE
    from entitysam.engine.evaluate.run import run

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    complete = run(config, options)
    # Only the first speaks and fails: a failing worker would end the others before they have spoken.
    if os.environ.get("RANK", "0") == "0":
        print((Path(config["output_dir"]) / TABLE).read_text(encoding="utf-8"), flush=True)
        if not complete:
            sys.exit(1)


def show_comparison(first: str, second: str, plot: str | None) -> None:
    from entitysam.engine.evaluate.report.compare import compare
    from entitysam.engine.evaluate.report.result import read_result

    print(compare(first, second))
    if plot:
        from entitysam.engine.evaluate.report.plots import comparison_figure, save

        save(comparison_figure(read_result(first), read_result(second), (first, second)), Path(plot))


if __name__ == "__main__":
    main()
