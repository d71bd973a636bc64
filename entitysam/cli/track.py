"""Tracks objects through a video by appearance (MASA): given detections, or proposals on every frame.

INPUT is a video, a folder or quoted glob of images (natural order), an image, a camera's number or a stream's address.
Detections are boxes or masks per frame: COCO, CocoVID, TAO or Scalabel (BDD100K) json, COCO results, MOT txt.
Frames are found by the names of their images, else by their numbers.

written to the result folder:
  overlay.mp4        the frames with their tracks drawn; colours stay with ids
  tracks.json        per track: first and last frame, score, category, box and mask on every frame
  tracks.txt         MOT Challenge: frame, id, x, y, width, height, score
  events.json        when tracks are born, lost and back
  contact_sheet.png  a few frames, original above overlay
  masks/, segments.json  if tracks have masks: id maps in the format of 'segment', smaller masks above larger ones

examples:
  entitysam track clip.mp4 --detections found.json -o out/clip
  entitysam track frames/ --detections det.txt --association iou -o out/baseline
  entitysam track clip.mp4 --proposals entitysam:model=vit-s -o out/clip
  entitysam track clip.mp4 --proposals entitysam:model=vit-s -o out/clip --resume
  entitysam track clip.mp4 --proposals esam:model=vit_b --model masa_r50 --weights masa_r50.pth
  entitysam track clip.mp4 --detections found.json --proposals fast --setting bdd tracker.beta=0.4
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitysam.cli.shared.arguments import add_output_arguments
from entitysam.shipped import RANDOM

if TYPE_CHECKING:
    from entitysam.io.readers.source import FrameSource
    from entitysam.io.writers.segments import WrittenResult
    from entitysam.masa.detection_cache import DetectionCache
    from entitysam.masa.video import VideoTracker
    from entitysam.structures import Detections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", help="video, folder, 'glob', image, camera number or stream address")
    add_output_arguments(parser)
    seen = parser.add_argument_group("objects to track (default: --proposals fast)")
    seen.add_argument(
        "--detections", metavar="FILE", help="boxes or masks per frame; a file, or a folder of Scalabel files"
    )
    seen.add_argument("--clip", metavar="NAME", help="the video in FILE, if it has several (default: INPUT's name)")
    seen.add_argument("--proposals", metavar="NAME[:KEY=VALUE,...]",
                      help="fast (MASA's own), entitysam, esam or sam; added to the detections if both are given")  # fmt: skip
    frames = parser.add_argument_group("frames")
    frames.add_argument("--stride", type=int, default=1, metavar="N", help="take every N-th frame (default: 1)")
    frames.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    method = parser.add_argument_group("method; tracker.KEY=VALUE changes its thresholds")
    method.add_argument("--association", choices=("masa", "iou"), default="masa", help="default: masa")
    method.add_argument("--setting", choices=("video", "tao", "bdd"), default="video",
                        help="published thresholds (default: video)")  # fmt: skip
    method.add_argument("--weights", metavar="FILE", help="of MASA, or 'random' (default: the shipped masa_tiny)")
    method.add_argument("--model", metavar="NAME", default="",
                        help="masa_r50, masa_sam_vitb, ...: for weight files without a config")  # fmt: skip
    method.add_argument("--resume", action="store_true", help="continue an interrupted run in the result folder")
    method.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Opens the input, then the detections, then the output, then the networks: what is cheap to check fails first."""
    import time

    from entitysam.io.readers.source import InputError, open_frames
    from entitysam.io.result_folder import TRACK_FILES, claim_folder, default_folder, origin_of, source_name

    started = time.monotonic()
    with (
        open_frames(arguments.input, stride=arguments.stride, max_frames=arguments.max_frames) as source,
        ExitStack() as stack,
    ):
        if source.is_live and arguments.resume:
            raise InputError(f"{arguments.input}: a live input cannot be resumed")
        title = source_name(arguments.input)
        read = [Path(file) for file in (arguments.detections, arguments.weights) if file and file != RANDOM]
        missing = next((file for file in read if not file.exists()), None)
        if missing is not None:
            raise FileNotFoundError(f"{missing}: no such file")
        given = open_detections(arguments, source)
        origin = None if source.is_live else origin_of(arguments.input, arguments.stride, arguments.max_frames)
        out = arguments.out or default_folder(arguments.input)
        stack.enter_context(claim_folder(out, TRACK_FILES, source, arguments.input, origin, read))

        from entitysam.cli.shared.progress import note, warn
        from entitysam.cli.shared.resume import ResumeFolder
        from entitysam.masa.detection_cache import DetectionCache

        tracker, detect = open_tracker(arguments, source.fps), detector(arguments, given)
        resume = None if source.is_live else ResumeFolder(out, identity_of(arguments), arguments.resume)
        if arguments.resume and resume and not resume.continues:
            note(f"{out}: nothing to resume, starting from the first frame", arguments.quiet)
        try:
            cache = DetectionCache(resume.records) if resume else None
            written = track(source, tracker, detect, cache, out, title, origin, arguments.quiet)
        except BaseException:
            if resume and resume.keep_progress():
                note(f"{out}: unfinished; the same command with --resume continues")
            raise
        if resume:
            resume.remove()
        for text in [*source.warnings, *written.warnings, *counted(tracker)]:
            warn(text)
    seconds = time.monotonic() - started
    print(f"{written.num_frames} frames, {written.num_entities} tracks in {seconds:.1f} s: {out}")
    return 0


def identity_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Identity of a run, which a resumed run must share: the input, the options, and the files that they name."""
    from entitysam.cli.shared.resume import input_identity

    names = ("clip", "proposals", "stride", "max_frames", "association", "setting", "model", "overrides")
    files = {name: getattr(arguments, name) for name in ("input", "detections", "weights")}
    identities = {name: input_identity(file) if file else None for name, file in files.items()}
    return {**identities, **{name: getattr(arguments, name) for name in names}}


def open_detections(arguments: argparse.Namespace, source: "FrameSource") -> "Callable[[int, Any], Detections] | None":
    """Reads FILE and says what belongs to frame `index` of the input; None without FILE.

    Raises:
        DataError: FILE cannot be used, or has nothing for this input.
        InputError: the input is live.
    """
    from entitysam.io.readers.source import InputError

    if not arguments.detections:
        return None
    if source.num_frames is None:
        raise InputError(f"{arguments.input}: its frames are not known beforehand, so that no file can have seen them")

    from entitysam.cli.shared.progress import note, warn
    from entitysam.data.detections.matching import ClipDetections

    count = source.num_frames
    names, numbers = [source.name(i) for i in range(count)], [i * arguments.stride for i in range(count)]
    clip = arguments.clip or Path(arguments.input).stem
    images, cut = source.fps is None, arguments.max_frames is not None  # a video's frames have no names of their own
    found = ClipDetections(arguments.detections, clip, names, numbers, has_images=images, open_end=cut)
    note(f"{arguments.detections}: frames matched by {found.rule}", arguments.quiet)
    for text in found.warnings:
        warn(text)
    if found.missing and arguments.stride == 1 and arguments.max_frames is None:
        warn(f"{arguments.detections}: {found.missing} of its frames are not in {arguments.input}, left out")
    return lambda index, frame: found.at(index, frame.shape[:2])


def open_tracker(arguments: argparse.Namespace, fps: float | None) -> "VideoTracker":
    """The tracker with its network, if it needs one.

    Raises:
        ConfigError: unknown or wrong setting, or unknown device.
        CheckpointError, FileNotFoundError: weights that are missing, unreadable or do not fit.
    """
    from entitysam.cli.shared.progress import warn
    from entitysam.engine.build import pick_device
    from entitysam.engine.methods.masa import PROPOSAL_LIMIT, needs_model, open_masa, tracker_settings
    from entitysam.masa.tracker import Tracker
    from entitysam.masa.video import VideoTracker

    node = {
        "setting": arguments.setting,
        "association": arguments.association,
        **tracker_overrides(arguments.overrides),
    }
    settings, device = tracker_settings(node), pick_device(arguments.device)
    limit = PROPOSAL_LIMIT if proposals_name(arguments) == "fast" else 0
    model: Any = None
    if needs_model(settings, limit):
        model = open_masa(arguments.weights, arguments.model).to(device)
        if arguments.weights == RANDOM:
            warn("MASA has random weights: its associations are not meaningful")
    return VideoTracker(Tracker(settings, fps), model, device, limit)


def proposals_name(arguments: argparse.Namespace) -> str:
    """Name of the proposals; "" if only detections are tracked."""
    if arguments.proposals is None:
        return "" if arguments.detections else "fast"
    return arguments.proposals.partition(":")[0]


def tracker_overrides(overrides: list[str]) -> dict[str, Any]:
    """`tracker.beta=0.4` -> {"beta": 0.4}.

    Raises:
        ConfigError: an override that does not start with `tracker.`.
    """
    from entitysam.registry import ConfigError
    from entitysam.settings import parse_value

    values = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if not key.startswith("tracker."):
            raise ConfigError(f"unknown key '{key}'; overrides start with 'tracker.'")
        values[key.removeprefix("tracker.")] = parse_value(value)
    return values


def detector(
    arguments: argparse.Namespace, given: "Callable[[int, Any], Detections] | None"
) -> "Callable[[int, Any], Detections] | None":
    """Detections of a frame without MASA's own proposals: given detections, other proposals, or both."""
    if proposals_name(arguments) in ("", "fast"):
        return given

    from entitysam.engine.build import pick_device
    from entitysam.engine.methods.build import build_proposals
    from entitysam.engine.methods.context import MethodContext

    propose = build_proposals(arguments.proposals, MethodContext(device=str(pick_device(arguments.device))))
    if given is None:
        return lambda index, frame: propose(frame)
    return lambda index, frame: given(index, frame) + propose(frame)


def track(
    source: "FrameSource",
    tracker: "VideoTracker",
    detect: "Callable[[int, Any], Detections] | None",
    cache: "DetectionCache | None",
    out: Path,
    title: str,
    origin: "dict[str, Any] | None",
    quiet: bool,
) -> "WrittenResult":
    """Tracks and writes frame by frame; cached frames are not encoded again. Ctrl-C on a live input finishes the files."""
    from entitysam.cli.shared.progress import frame_bar, note
    from entitysam.cli.shared.stopping import StopRequest
    from entitysam.io.writers.tracks import TrackWriter

    with (
        StopRequest(source.end if source.is_live else lambda: None) as stop,
        TrackWriter(out, title, source.width, source.height, source.fps, origin) as writer,
        frame_bar("tracking", source.num_frames, quiet) as bar,
    ):
        for result in tracker.stream(source, detect, cache):
            name, time = source.name(result.index), source.time(result.index)
            writer.add(name, result.frame, result.ids, result.objects, result.events, time)
            bar.step()
            if source.is_live and stop.requested:
                note("stopped: finishing the files", quiet)
                break
            stop.check()
        return writer.finish()


def counted(tracker: "VideoTracker") -> list[str]:
    """The tracker's warnings as lines."""
    return [f"{count} {text}" for text, count in tracker.warnings.items() if count]
