"""Labels the entities of an existing result, without segmenting again.

FOLDER is a result of 'entitysam segment', which is written again with names (in place, or to -o FOLDER). With --config,
FOLDER holds the predictions of any method on an evaluation set (pred.json with pan_pred/, or results.json); they get the
categories of the set's task and are written to -o FOLDER for 'tools/eval_net.py --predictions'.

Valid answers are cached on disk: they are not asked again, and an interrupted run continues. If nothing gets a name,
nothing is written and the exit status is 2.

examples:
  entitysam label out/clip --labels "person, dog, grass"
  entitysam label out/clip --labels coco --dry-run
  entitysam label out/clip --labels free -o out/named classifier.top_frames=3
  entitysam label out/clip --labels vipseg --base-url http://localhost:8000/v1 --vlm Qwen/Qwen2.5-VL-7B-Instruct
  entitysam label their/predictions --config eval/vipseg_vps -o named evaluation.dataset.root=datasets/VIPSeg_720P
"""

import argparse
from contextlib import ExitStack
from pathlib import Path

from entitysam.cli.shared.arguments import output_folder
from entitysam.cli.shared.labels import (
    add_label_arguments,
    classifier_node,
    open_labeller,
    split_classifier_overrides,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a result; with --config, predictions")
    parser.add_argument(
        "-o", "--out", type=output_folder, metavar="FOLDER", help="for the labelled result (default: in place)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar; the summary is still printed")
    parser.add_argument("--input", metavar="INPUT", help="the frames, if they have moved or are not local files")
    parser.add_argument("--config", metavar="FILE", help="evaluation config of the predictions, e.g. eval/vipseg_vps")
    parser.add_argument("--dry-run", action="store_true", help="print the number of requests, tokens and the cost")
    add_label_arguments(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    overrides, others = split_classifier_overrides(arguments.overrides)
    if arguments.config:
        return _label_predictions(arguments, overrides, others)
    from entitysam.registry import ConfigError

    if others:
        raise ConfigError(f"{others[0]}: overrides start with 'classifier.', unless there is a --config")
    if arguments.labels is None:
        raise ConfigError("--labels is missing: give names, a shipped list, or 'free'")
    if not arguments.folder.is_dir():
        raise FileNotFoundError(f"{arguments.folder}: no such folder")
    labelling = open_labeller(arguments, overrides)
    assert labelling is not None

    from entitysam.cli.shared.labelling import label_folder
    from entitysam.engine.labelling.saved_result import SavedResult
    from entitysam.io.readers.source import open_frames
    from entitysam.io.result_folder import CROPS, SEGMENT_FILES, claim_folder

    out = arguments.out or arguments.folder
    result = SavedResult.read(arguments.folder)
    # Only an input that the user types may be an address or a camera.
    source = {**(result.source or {}), "source": arguments.input} if arguments.input else result.local_source()
    with open_frames(**source) as frames, ExitStack() as stack:
        if not arguments.dry_run:
            files = [*SEGMENT_FILES, CROPS]
            stack.enter_context(claim_folder(out, files, frames, source["source"], result.source))
        label_folder(result, out, frames, *labelling, dry_run=arguments.dry_run, quiet=arguments.quiet)
    return 0


def _label_predictions(arguments: argparse.Namespace, overrides: list[str], others: list[str]) -> int:
    from entitysam.cli.shared.labelling import summary
    from entitysam.cli.shared.progress import frame_bar
    from entitysam.config import load_config, to_dict
    from entitysam.engine.evaluate.label_predictions import open_predictions
    from entitysam.engine.labelling.video import estimate_effort
    from entitysam.io.files import check_folder
    from entitysam.registry import ConfigError

    if arguments.labels or arguments.input:
        raise ConfigError(
            "with --config, class list and frames come from the data set: give neither --labels nor --input"
        )
    if arguments.out is None:
        raise ConfigError("with --config, the labelled predictions need a folder: -o FOLDER")
    config = load_config(arguments.config, others)
    node = classifier_node(arguments, overrides, to_dict(config)["evaluation"]["classifier"])
    predictions = open_predictions(config, arguments.folder, check_folder(arguments.out), node)
    videos, labeller = predictions.videos(), predictions.labeller
    if arguments.dry_run:
        with frame_bar("drawing", len(videos), arguments.quiet) as bar:
            crops = []
            for video in videos:
                crops.append(predictions.draw(video))
                bar.step()
        print(estimate_effort(labeller.labeller, crops))
        return 0
    with frame_bar("labelling", len(videos), arguments.quiet) as bar:
        predictions.run(bar.step)
    statistics = labeller.statistics()
    print(summary(statistics["entities"], statistics["unnamed"], statistics, arguments.out))
    print(f"python tools/eval_net.py --predictions {arguments.out} --config {arguments.config}")
    return 0
