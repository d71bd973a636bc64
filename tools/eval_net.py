"""Evaluates a model, or saved predictions, on a benchmark.

Examples:
  python tools/eval_net.py --weights checkpoints/entitysam_tiny.safetensors --config configs/eval/synthetic.yaml
  python tools/eval_net.py --weights model_0009999.pth --config configs/eval/vipseg.yaml --num-gpus 8 model=vits
  python tools/eval_net.py --predictions output/eval_vipseg --config configs/eval/vipseg.yaml
"""

import argparse
import logging
import sys
from pathlib import Path

from entitysam import distributed
from entitysam.config import load_config, to_dict, to_yaml
from entitysam.engine.evaluate_run import RunOptions, run
from entitysam.engine.report import TABLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a YAML file, or a name below configs/, e.g. eval/vipseg")
    parser.add_argument(
        "--weights", default="", help="weight file, or 'random'; 'model=NAME' where it has no config inside"
    )
    parser.add_argument(
        "--predictions", default="", metavar="DIR", help="evaluate saved predictions instead of a model"
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine (on a CPU too)")
    parser.add_argument("--resume", action="store_true", help="skip the videos that an interrupted run finished")
    parser.add_argument("--limit-videos", type=int, metavar="K", help="only the first K videos")
    parser.add_argument(
        "--save-predictions", action=argparse.BooleanOptionalAction, default=True, help="keep them after the report"
    )
    parser.add_argument("--device", default="auto", help="cuda, cpu, ... (whichever is there)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--print-config", action="store_true", help="print the composed config and leave")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, e.g. output_dir=out")
    arguments = parser.parse_intermixed_args()
    try:
        config = load_config(arguments.config, arguments.overrides)
        if arguments.print_config:
            print(to_yaml(config), end="")
            return
        options = RunOptions(
            weights=arguments.weights,
            predictions=arguments.predictions,
            resume=arguments.resume,
            limit_videos=arguments.limit_videos,
            save_predictions=arguments.save_predictions,
            device=arguments.device,
            quiet=arguments.quiet,
        )
        distributed.launch(worker, arguments.num_gpus, (to_dict(config), options))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def worker(config: dict, options: RunOptions) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    complete = run(config, options)
    if distributed.rank() == 0:
        print((Path(config["output_dir"]) / TABLE).read_text(encoding="utf-8"))
    if not complete:
        sys.exit(1)


if __name__ == "__main__":
    main()
