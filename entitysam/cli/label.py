"""Names the entities of a result that is there, without segmenting again.

FOLDER is a result of 'entitysam segment', which is written again with names (in place, or to -o FOLDER); or, with
--config, any method's predictions on an evaluation set (pred.json with pan_pred/, or results.json), which get the
categories of the set's task in a folder of their own, for 'tools/eval_net.py --predictions'.

Every answer is kept on disk: what was asked once is not asked again, and an interrupted run goes on where it was.

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
from typing import Any

from entitysam.cli.shared.arguments import output_folder
from entitysam.cli.shared.labels import add_label_arguments, classifier_node, open_labeller, split_classifier_words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a result, or with --config predictions")
    parser.add_argument(
        "-o", "--out", type=output_folder, metavar="FOLDER", help="for the named result (default: in place)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar; the summary is still printed")
    parser.add_argument("--input", metavar="INPUT", help="the frames, where they are no longer where they were")
    parser.add_argument("--config", metavar="FILE", help="evaluation config of the predictions, e.g. eval/vipseg_vps")
    parser.add_argument("--dry-run", action="store_true", help="print the number of requests, tokens and the cost")
    add_label_arguments(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    words, others = split_classifier_words(arguments.overrides)
    if arguments.config:
        return _label_predictions(arguments, words, others)
    from entitysam.registry import ConfigError

    if others:
        raise ConfigError(f"{others[0]}: settings start with 'classifier.', unless there is a --config")
    naming = open_labeller(arguments, words)
    if naming is None:
        raise ConfigError("--labels is needed: names, a list that comes along, or 'free'")

    from entitysam.cli.shared.labelling import label_result
    from entitysam.engine.labelling.results import SavedResult
    from entitysam.io.readers.source import InputError, open_frames
    from entitysam.io.result_folder import CROPS, SEGMENT_FILES, claim_folder, recorded_origin

    out = arguments.out or arguments.folder
    head = SavedResult.read(arguments.folder).head
    if arguments.input:
        recorded = head.get("source") or {}
        options = {key: recorded[key] for key in ("stride", "max_frames") if key in recorded}
        origin: dict[str, Any] | None = {**options, "source": arguments.input}
    else:
        origin = recorded_origin(arguments.folder, head)
    if origin is None:
        raise InputError(f"{arguments.folder}: does not say where its frames are; give --input")
    with open_frames(**origin) as source, ExitStack() as stack:
        if not arguments.dry_run:
            files = [*SEGMENT_FILES, CROPS]
            stack.enter_context(claim_folder(out, files, source, origin["source"], head.get("source")))
        label_result(arguments.folder, out, source, *naming, dry_run=arguments.dry_run, quiet=arguments.quiet)
    return 0


def _label_predictions(arguments: argparse.Namespace, words: list[str], others: list[str]) -> int:
    from entitysam.cli.shared.labelling import print_estimate, summary
    from entitysam.cli.shared.progress import frame_bar
    from entitysam.config import load_config, to_dict
    from entitysam.engine.evaluate.label_predictions import open_predictions
    from entitysam.io.files import check_folder
    from entitysam.registry import ConfigError

    if arguments.labels or arguments.input:
        raise ConfigError("with --config the data set has the class list and the frames: neither --labels nor --input")
    if arguments.out is None:
        raise ConfigError("with --config the named predictions need a folder: -o FOLDER")
    config = load_config(arguments.config, others)
    node = classifier_node(arguments, words, to_dict(config)["evaluation"]["classifier"])
    predictions = open_predictions(config, arguments.folder, check_folder(arguments.out), node)
    videos, labeller = predictions.videos(), predictions.labeller
    if arguments.dry_run:
        with frame_bar("drawing", len(videos), arguments.quiet) as bar:
            pictures = []
            for video in videos:
                pictures.append([crop.image for crop in predictions.draw(video)])
                bar.step()
        print_estimate(labeller.labeller, pictures)
        return 0
    with frame_bar("naming", len(videos), arguments.quiet) as bar:
        predictions.run(bar.step)
    took = labeller.statistics()
    print(summary(took["entities"], took["unnamed"], took, arguments.out))
    print(f"python tools/eval_net.py --predictions {arguments.out} --config {arguments.config}")
    return 0
