"""Evaluates a model, saved predictions or another method on a benchmark. EVAL.md lists every benchmark and its command.

Examples:
  # a model on the synthetic videos of `python tools/prepare_data.py synthetic --out datasets/synthetic`
  python tools/eval_net.py --weights checkpoints/entitysam_tiny.safetensors --config configs/eval/synthetic.yaml
  # a model without a config in its weight file, on 8 GPUs
  python tools/eval_net.py --weights model_0009999.pth --config configs/eval/vipseg.yaml --num-gpus 8 model=vits
  # saved predictions
  python tools/eval_net.py --predictions output/eval_synthetic --config configs/eval/synthetic.yaml output_dir=output/again
  # another method, and the comparison of two results
  python tools/eval_net.py --method grid:cells=6 --config configs/eval/synthetic.yaml output_dir=output/grid
  # a table of several methods; the paper's Table 2
  python tools/eval_net.py --method grid --method minvis --weights W --config configs/eval/synthetic.yaml output_dir=output/table
  python tools/eval_net.py --config configs/eval/table2.yaml --resume
  python tools/eval_net.py --compare output/grid output/eval_synthetic --plot compared.png
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing torch takes seconds, and --help does not need it
    from entitysam.engine.evaluate.methods import MethodRow
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
        values, options = to_dict(config), read_options(arguments)
        several = len(arguments.method) > 1 or (
            config.evaluation.methods and not (options.method or options.predictions)
        )
        if several:
            from entitysam.engine.evaluate.methods import method_rows

            nodes = [{"method": text} for text in arguments.method] or values["evaluation"]["methods"]
            distributed.launch(compare, arguments.num_gpus, (values, options, method_rows(nodes)))
        else:
            distributed.launch(worker, arguments.num_gpus, (values, options))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--config", default="eval/vipseg", help="YAML file, or name below configs/ (default: eval/vipseg)")
    source = result.add_mutually_exclusive_group()
    source.add_argument("--predictions", default="", metavar="DIR", help="evaluate the saved predictions in DIR")
    source.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME[:key=value,...]",
        help="a file of configs/methods, e.g. per_frame:min_iou=0.3, or your own YAML file (default: EntitySAM); given several times, "
        "a table of all of them",
    )
    source.add_argument("--baseline", dest="method", action="append", help=argparse.SUPPRESS)  # its earlier name
    source.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="compare two result folders, largest loss of B first"
    )
    add("--weights", default="", metavar="FILE", help="weight file, or 'random'; add model=NAME if it has no config")
    add("--num-gpus", type=positive, default=1, metavar="N", help="number of processes, also on a CPU (default: 1)")
    add("--resume", action="store_true", help="skip the videos that an interrupted run has finished")
    add("--limit-videos", type=positive, metavar="K", help="evaluate only the first K videos")
    add(
        "--save-predictions",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the predictions after the report is written",
    )
    add("--worst", type=count, default=6, metavar="K", help="number of videos on the contact sheet (default: 6)")
    add("--plot", metavar="FILE", help="with --compare: write a scatter plot of the videos as PNG")
    add("--device", default="auto", help="cuda, cpu, ... (default: the one that is available)")
    add("--quiet", action="store_true", help="no progress bar")
    add("--print-config", action="store_true", help="print the composed config and exit")
    add("overrides", nargs="*", metavar="key=value", help="config overrides, e.g. output_dir=output/mine")
    return result


def count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is below 0")
    return number


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
        method=arguments.method[0] if len(arguments.method) == 1 else "",
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
    # Only the first process prints the table and exits with 1: an exit of another one would terminate it.
    if os.environ.get("RANK", "0") == "0":
        print((Path(config["output_dir"]) / TABLE).read_text(encoding="utf-8"), flush=True)
        if not complete:
            sys.exit(1)


def compare(values: dict, options: "RunOptions", rows: "list[MethodRow]") -> None:
    from entitysam.engine.evaluate.methods import compare_methods
    from entitysam.engine.evaluate.report.methods_table import TABLE

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    complete = compare_methods(values, options, rows)
    if os.environ.get("RANK", "0") == "0":
        print((Path(values["output_dir"]) / TABLE).read_text(encoding="utf-8"), flush=True)
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
