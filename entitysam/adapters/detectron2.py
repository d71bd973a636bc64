"""EntitySAM for users of detectron2: meta-architecture, catalogs, evaluator and trainer, built from this project's config.

The only file that imports detectron2. `to_detectron2` derives detectron2's config keys from a config of this project,
which is stored whole in `cfg.ENTITYSAM.CONFIG`.

    from entitysam.adapters.detectron2 import Trainer, to_detectron2
    cfg = to_detectron2(load_config("entitysam_vits_stage1", ["data.dataset.root=datasets/coco"]))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
"""

import argparse
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase, default_setup
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from entitysam import distributed
from entitysam.config import from_dict, load_config, shipped_folder, to_dict, to_yaml
from entitysam.engine.build import open_model, pick_device
from entitysam.engine.evaluate.loop import input_type, read_frames
from entitysam.engine.evaluate.run import build_dataset, build_evaluation, build_prediction_format, make_labeller
from entitysam.engine.formats.base import Segmented
from entitysam.engine.methods.appearance import build_segmenter
from entitysam.engine.train import run as training
from entitysam.engine.train.optim import build_optimizer, learning_rate
from entitysam.engine.train.state import save_atomically
from entitysam.engine.train.trainer import (
    FINAL,
    NonFiniteLoss,
    clip_generator,
    clip_gradients,
    clips_per_worker,
    distribute,
)
from entitysam.losses.entity_criterion import mean_num_masks
from entitysam.precision import autocast
from entitysam.registry import CRITERIA, DATASETS, ConfigError, build
from entitysam.shipped import RANDOM
from entitysam.structures import Clip

TRAIN, TEST = "entitysam_train", "entitysam_test"  # the data sets of the config that is run
TASK = "entitysam"  # key of the results

# Configs ------------------------------------------------------------------------------------------------------------


def to_detectron2(config: DictConfig) -> CfgNode:
    """detectron2's config of a run; also registers the run's data sets in the catalogs as `TRAIN` and `TEST`.

    Args:
        config: a whole `Config`.

    Raises:
        ConfigError: another model than EntitySAM, a batch that cannot be divided by the workers, or fp16 without CUDA.
    """
    train, device = config.train, pick_device(config.train.device)
    if config.model.get("name") != "entity_sam":
        raise ConfigError(f"model.name: detectron2 trains entity_sam, not '{config.model.get('name')}'")
    clips_per_worker(train)
    if train.amp == "fp16" and device.type != "cuda":
        raise ConfigError("train.amp: detectron2 trains in fp16 on CUDA only; bf16 or fp32 elsewhere")
    register(TRAIN, partial(training_records, to_dict(config)["data"]["dataset"]))
    register_evaluation(TEST, to_dict(config)["evaluation"])
    cfg = get_cfg()
    cfg.ENTITYSAM = CfgNode({"CONFIG": to_yaml(config)})
    cfg.MODEL.META_ARCHITECTURE = EntitySAMArchitecture.__name__
    cfg.MODEL.DEVICE = str(device)
    cfg.MODEL.WEIGHTS = ""  # `weights` of the config are loaded as the model is built
    cfg.DATASETS.TRAIN = (TRAIN,)
    cfg.DATASETS.TEST = (TEST,) if config.evaluation.dataset else ()
    cfg.DATALOADER.NUM_WORKERS = config.data.num_workers
    cfg.SOLVER.IMS_PER_BATCH = train.batch_size
    cfg.SOLVER.MAX_ITER = config.optim.max_iters
    cfg.SOLVER.BASE_LR = config.optim.lr
    cfg.SOLVER.CHECKPOINT_PERIOD = train.save_period or config.optim.max_iters
    cfg.SOLVER.AMP.ENABLED = train.amp == "fp16"  # only this needs a scaler; bf16 is the architecture's own autocast
    cfg.TEST.EVAL_PERIOD = train.eval_period
    cfg.SEED = config.seed
    cfg.OUTPUT_DIR = config.output_dir
    return cfg


def from_detectron2(cfg: CfgNode) -> DictConfig:
    """The `Config` inside a config of `to_detectron2`."""
    return from_dict(OmegaConf.to_container(OmegaConf.create(cfg.ENTITYSAM.CONFIG)))  # type: ignore[arg-type]


# Catalogs -----------------------------------------------------------------------------------------------------------


def register(name: str, records: Callable[[], list[dict[str, Any]]], **metadata: Any) -> None:
    """Registers a data set in both catalogs, replacing one of the same name; it is read on first use."""
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, records)
    MetadataCatalog.get(name).set(**metadata)


def register_evaluation(name: str, evaluation: dict[str, Any]) -> None:
    """Registers an evaluation set with its evaluators, for `Trainer.test`.

    Args:
        name: in the catalogs.
        evaluation: an `EvaluationConfig` as plain Python.
    """
    register(name, partial(evaluation_records, evaluation), evaluator_type=TASK, evaluation=evaluation)


def training_records(node: dict[str, Any]) -> list[dict[str, Any]]:
    """detectron2's records of a training set: `file_name`, `image_id` (its position).

    Raises:
        ConfigError, DataError: a data set that cannot be built.
    """
    dataset = build(DATASETS, node, "data.dataset")
    return [{"file_name": dataset.source(index), "image_id": index} for index in range(len(dataset))]


def evaluation_records(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of an evaluation set, one per video: `video_id`, `file_names`, `height`, `width`, and the `video` itself.

    Raises:
        ConfigError, DataError: a data set that cannot be built.
    """
    dataset = build_dataset(from_dict({"evaluation": evaluation}))
    return [
        {
            "video_id": video.video_id,
            "file_names": [str(file) for file in video.frame_files],
            "height": video.height,
            "width": video.width,
            "video": video,
        }
        for video in dataset.videos
    ]


def register_shipped() -> None:
    """Every set of `configs/data` as `entitysam_<name>`, of `configs/eval` as `entitysam_eval_<name>`, at their paths."""
    for path in sorted((shipped_folder("configs") / "data").glob("*.yaml")):
        config = load_config("entitysam_vits_stage1", [f"data={path.stem}"])
        register(f"entitysam_{path.stem}", partial(training_records, to_dict(config)["data"]["dataset"]))
    for path in sorted((shipped_folder("configs") / "eval").glob("*.yaml")):
        register_evaluation(f"entitysam_eval_{path.stem}", to_dict(load_config(path))["evaluation"])


# Model --------------------------------------------------------------------------------------------------------------


@META_ARCH_REGISTRY.register()
class EntitySAMArchitecture(nn.Module):
    """EntitySAM with its criterion and the weights of the config.

    In training it takes [{"clip": Clip}, ...] and returns weighted losses, averaged over the clips; all clips of a
    batch are in memory at once. In evaluation it takes records of `evaluation_records` and returns the segmentation of
    each video by a `VideoSegmenter`.

    Args:
        cfg: of `to_detectron2`.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: what cannot be built or loaded.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        config = from_detectron2(cfg)
        values = to_dict(config)
        weights = values["weights"] or RANDOM
        self.network = open_model(values["model"], weights, seed=config.seed, partial=True).model
        self.criterion = build(CRITERIA, config.criterion, "criterion")
        self.amp, self.seed = config.train.amp, config.seed
        self.inference = to_dict(config)["inference"]

    def forward(self, batch: Sequence[dict[str, Any]]) -> dict[str, Tensor] | list[Segmented]:
        if not self.training:
            segmenter = build_segmenter(self.network, self.inference)
            sizes = [(record["height"], record["width"]) for record in batch]
            return [segmenter.segment(read_frames(record["video"]), size) for record, size in zip(batch, sizes)]
        clips = [item["clip"].to(self.network.device) for item in batch]
        masks_per_clip = sum(len(clip.targets) * len(clip.frames) for clip in clips) / len(clips)
        num_masks = mean_num_masks(masks_per_clip, self.network.device)
        sums: dict[str, Tensor] = {}
        for clip in clips:
            for name, loss in self._losses(clip, num_masks).items():
                sums[name] = sums.get(name, 0) + loss / len(clips)
        return sums

    def _losses(self, clip: Clip, num_masks: Tensor) -> dict[str, Tensor]:
        generator = clip_generator(self.seed, clip.index, clip.frames.device)
        with autocast(self.amp, clip.frames.device):
            output = self.network(*self.criterion.inputs([clip], [generator]))
        losses = self.criterion(output, clip.targets, generator, num_masks)
        return {f"loss_{name}": weight * losses[name] for name, weight in self.criterion.weights.items()}


# Evaluation ---------------------------------------------------------------------------------------------------------


class EntityEvaluator(DatasetEvaluator):
    """The evaluators of `evaluation.evaluators` with detectron2's interface; predictions are written as submissions.

    Args:
        config: the whole `Config`.
        folder: of the predictions.

    Raises:
        ConfigError, DataError: what cannot be built.
    """

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config = config
        self.dataset = build_dataset(config)
        self.prediction_format = build_prediction_format(config, self.dataset, folder)
        self.labeller = make_labeller(config, self.dataset)
        self.reset()

    def reset(self) -> None:
        self.evaluators = build_evaluation(self.config, self.dataset, self.prediction_format)
        self.entries: list[Any] = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[Segmented]) -> None:
        for record, segmented in zip(inputs, outputs):
            video = record["video"]
            named = self.labeller.label(video, segmented) if self.labeller else None
            entry = (
                self.prediction_format.write(video, named, named.categories)
                if named
                else self.prediction_format.write(video, segmented)
            )
            self.entries.append(entry)
            for evaluator in self.evaluators.values():
                evaluator.update(self.prediction_format.pair(video, entry, input_type(evaluator)))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics in percent, the same on every worker."""
        shares = distributed.gather((self.evaluators, self.entries))
        if distributed.rank() == 0:
            self.prediction_format.write_index([entry for _, entries in shares for entry in entries])
        metrics: dict[str, float] = {}
        for name, evaluator in shares[0][0].items():
            for others, _ in shares[1:]:
                evaluator.merge(others[name])
            metrics |= {key: value * evaluator.scale for key, value in evaluator.compute().items()}
        return {TASK: metrics}


# Training -----------------------------------------------------------------------------------------------------------


class ClipBatches:
    """This worker's endless batches [{"clip": Clip}, ...] of the same clips that the native engine trains on.

    Args:
        config: the whole `Config`.
        start: clips consumed by all workers so far.
    """

    def __init__(self, config: DictConfig, start: int = 0) -> None:
        self.clips_from = training.clip_source(config, pick_device(config.train.device))
        self.per_worker, self.start = clips_per_worker(config.train), start

    def __iter__(self) -> Iterator[list[dict[str, Clip]]]:
        clips = self.clips_from(self.start)
        while True:
            yield [{"clip": next(clips)} for _ in range(self.per_worker)]


class WriteFinal(HookBase):
    """Writes `model_final.pt` beside detectron2's checkpoints, for `tools/eval_net.py` and the next stage."""

    def after_train(self) -> None:
        if self.trainer.iter < self.trainer.max_iter or not comm.is_main_process():
            return
        cfg, model = self.trainer.cfg, self.trainer.checkpointer.model
        content = {"model": model.network.state_dict(), "config": to_dict(from_detectron2(cfg))}
        save_atomically(content, Path(cfg.OUTPUT_DIR) / FINAL)


class Trainer(DefaultTrainer):
    """detectron2's trainer with this project's data, optimiser, schedule and evaluation.

    Args:
        cfg: of `to_detectron2`.

    Raises:
        ConfigError, DataError, CheckpointError, FileNotFoundError: what cannot be built.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # As DefaultTrainer, which has no option for parameters without a gradient (point offsets in clips of one frame).
        TrainerBase.__init__(self)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        model = distribute(model, next(model.parameters()).device)
        self._trainer = (AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer)(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continues from the last checkpoint if asked to, at the next clip of the data order."""
        super().resume_or_load(resume)
        if self.start_iter:
            self._trainer.reset_data_loader(lambda: self.build_train_loader(self.cfg, self.start_iter))

    def build_hooks(self) -> list[HookBase]:
        return [*super().build_hooks(), WriteFinal()]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW with the published groups; gradients are clipped over the full model as it steps."""
        optim = from_detectron2(cfg).optim
        optimizer = build_optimizer(model, optim)

        def clip(*_: Any) -> None:
            clip_gradients(model, optim.clip_norm)

        optimizer.register_step_pre_hook(clip)
        return optimizer

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        optim = from_detectron2(cfg).optim
        factor = partial(_relative_rate, optim)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_iter: int = 0) -> Iterable[list[dict[str, Clip]]]:
        return ClipBatches(from_detectron2(cfg), start_iter * cfg.SOLVER.IMS_PER_BATCH)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        return build_detection_test_loader(DatasetCatalog.get(dataset_name), mapper=None)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> EntityEvaluator:
        values = to_dict(from_detectron2(cfg))
        config = from_dict({**values, "evaluation": MetadataCatalog.get(dataset_name).evaluation})
        return EntityEvaluator(config, Path(cfg.OUTPUT_DIR) / "inference" / dataset_name)


def _relative_rate(optim: DictConfig, iteration: int) -> float:
    return learning_rate(optim, iteration) / optim.lr if optim.lr else 0.0


def run(values: dict[str, Any], resume: bool = False, dry_run: bool = False) -> bool:
    """Trains with detectron2; arguments, processes and errors as of `engine.train.run.run`."""
    if dry_run:  # the same parts
        return training.run(values, dry_run=True)
    config = from_dict(values)
    with distributed.process_group(pick_device(config.train.device)):
        cfg = to_detectron2(config)
        if not resume and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").exists():
            raise ConfigError(
                f"output_dir: {cfg.OUTPUT_DIR} holds checkpoints of an earlier run; "
                "go on with --resume, or choose another output_dir"
            )
        default_setup(cfg, argparse.Namespace())
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="entitysam")
        trainer = Trainer(cfg)
        logging.getLogger("entitysam").info("%s", training.describe(trainer.checkpointer.model, config))
        trainer.resume_or_load(resume)
        try:
            trainer.train()
        except FloatingPointError as error:
            raise NonFiniteLoss(" ".join(str(error).split())) from error
    return True


register_shipped()
