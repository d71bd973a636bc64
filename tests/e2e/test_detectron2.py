"""The detectron2 engine, where detectron2 is installed; the error where it is not."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_net
from support.processes import run_here

from entitysam.config import load_config, to_dict
from entitysam.engine.train import run as training
from entitysam.registry import ConfigError

ROOT = Path(__file__).parents[2]
INSTALLED = importlib.util.find_spec("detectron2") is not None
needs_detectron2 = pytest.mark.skipif(not INSTALLED, reason="detectron2 is not installed (TRAIN.md, detectron2)")
SMALL = {
    "model.image_size": 64,
    "model.num_entities": 6,
    "criterion.num_points": 128,
    "weights": "''",
    "train.batch_size": 2,
    "train.log_period": 1,
    "train.image_period": 0,
    "train.tensorboard": "false",
    "train.device": "cpu",
    "train.amp": "fp32",
    "data.num_workers": 0,
    "data.mapper.num_frames": 2,
    "optim.max_iters": 3,
    "optim.warmup_iters": 2,
    "optim.schedule": "step",
    "optim.steps": "[2]",
}


def options(synthetic, output, **changes):
    values = {**SMALL, "data.dataset.root": synthetic, "output_dir": output, **changes}
    return [f"{key}={value}" for key, value in values.items()]


def config(synthetic, output, **changes):
    return load_config("tiny_scratch_stage2", options(synthetic, output, **changes))


def evaluation(synthetic):
    dataset = f"{{name:vipseg,root:{synthetic / 'VIPSeg_720P'},split:val}}"
    return {
        "evaluation.dataset": dataset,
        "evaluation.evaluators": "[{name:veq},{name:stq_en}]",
        "inference.warmup_frames": 0,
    }


def final_weights(folder):
    return torch.load(folder / "model_final.pt", weights_only=True)["model"]


def furthest(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def train(values, resume=False):
    from entitysam.adapters.detectron2 import Trainer, to_detectron2

    torch.manual_seed(values.seed)
    trainer = Trainer(to_detectron2(values))
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


@pytest.mark.skipif(INSTALLED, reason="detectron2 is installed")
def test_without_detectron2_the_command_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    options = ["--config", "tiny_scratch_stage1", "--engine", "detectron2", f"output_dir={tmp_path / 'run'}"]
    result = run_here(monkeypatch, capsys, train_net.main, *options)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "--engine detectron2: 'detectron2' is not installed; pip install" in result.stderr
    assert not (tmp_path / "run").exists()


@needs_detectron2
def test_both_engines_see_the_same_clips_and_take_the_same_steps(synthetic, tmp_path):
    values = config(synthetic, tmp_path / "native")
    assert training.run(to_dict(values))
    rows = [json.loads(line) for line in (tmp_path / "native" / "metrics.jsonl").read_text().splitlines()]
    trainer = train(config(synthetic, tmp_path / "detectron2"))
    totals = [total for total, _ in trainer.storage.history("total_loss").values()]
    assert totals == pytest.approx([row["total"] for row in rows], rel=1e-4)
    mask = [loss for loss, _ in trainer.storage.history("loss_mask").values()]
    assert mask == pytest.approx([5 * row["mask"] for row in rows], rel=1e-4)
    start = training_start(values)
    native, ours = final_weights(tmp_path / "native"), final_weights(tmp_path / "detectron2")
    moved = furthest(start, native)
    assert moved > 0
    assert furthest(native, ours) < 0.01 * moved


def training_start(values):
    from entitysam import build_model

    torch.manual_seed(values.seed)
    return build_model(values.model).state_dict()


@needs_detectron2
def test_resume_continues_with_the_next_clip(synthetic, tmp_path):
    straight = {"train.save_period": 1, "optim.max_iters": 3}
    train(config(synthetic, tmp_path / "straight", **straight))
    parts = config(synthetic, tmp_path / "parts", **straight)
    parts.optim.max_iters = 2
    train(parts)
    parts.optim.max_iters = 3
    resumed = train(parts, resume=True)
    assert resumed.start_iter == 2
    assert furthest(final_weights(tmp_path / "straight"), final_weights(tmp_path / "parts")) == 0


@needs_detectron2
def test_the_command_trains_evaluates_and_leaves_weights_for_eval_net(synthetic, tmp_path):
    changes = {"train.eval_period": 3, **evaluation(synthetic)}
    command = [
        sys.executable,
        "tools/train_net.py",
        "--config",
        "configs/tiny_scratch_stage2.yaml",
        "--engine",
        "detectron2",
    ]
    arguments = options(synthetic, tmp_path / "run", **changes)
    result = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert 0 <= metrics[-1]["entitysam/VEQ"] <= 100
    assert (tmp_path / "run" / "inference" / "entitysam_test" / "pred.json").is_file()

    from entitysam.adapters.detectron2 import run
    from entitysam.engine.evaluate.run import RunOptions
    from entitysam.engine.evaluate.run import run as evaluate

    with pytest.raises(ConfigError, match=r"run holds checkpoints of an earlier run; go on with --resume"):
        run(to_dict(config(synthetic, tmp_path / "run", **changes)))
    content = torch.load(tmp_path / "run" / "model_final.pt", weights_only=True)
    native = load_config("eval/synthetic", [f"{k}={v}" for k, v in evaluation(synthetic).items()])
    native.model, native.output_dir = content["config"]["model"], str(tmp_path / "eval")
    assert evaluate(
        to_dict(native), RunOptions(weights=str(tmp_path / "run" / "model_final.pt"), device="cpu", quiet=True)
    )
    report = json.loads((tmp_path / "eval" / "result.json").read_text())
    assert report["metrics"]["VEQ"] == pytest.approx(metrics[-1]["entitysam/VEQ"], abs=1e-6)


@needs_detectron2
def test_the_catalogs_hold_the_sets_of_the_config_and_of_configs(synthetic, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from entitysam.adapters.detectron2 import TEST, TRAIN, from_detectron2, to_detectron2

    values = config(synthetic, tmp_path, **evaluation(synthetic))
    cfg = to_detectron2(values)
    assert to_dict(from_detectron2(cfg)) == to_dict(values)
    records = DatasetCatalog.get(TRAIN)
    assert [record["image_id"] for record in records] == list(range(6))
    assert all(Path(record["file_name"]).is_file() for record in records)
    videos = DatasetCatalog.get(TEST)
    assert [len(record["file_names"]) for record in videos] == [3, 3]
    assert (videos[0]["height"], videos[0]["width"]) == (64, 80)
    assert MetadataCatalog.get(TEST).evaluator_type == "entitysam"
    assert {"entitysam_coco", "entitysam_entityseg", "entitysam_eval_vipseg"} <= set(DatasetCatalog.list())


@needs_detectron2
def test_bad_configs_are_one_line(synthetic, tmp_path):
    from entitysam.adapters.detectron2 import to_detectron2

    with pytest.raises(ConfigError, match=r"train\.amp: detectron2 trains in fp16 on CUDA only"):
        to_detectron2(config(synthetic, tmp_path, **{"train.amp": "fp16"}))
    with pytest.raises(ConfigError, match=r"train\.batch_size: 0 clips"):
        to_detectron2(config(synthetic, tmp_path, **{"train.batch_size": 0}))
    with pytest.raises(ConfigError, match=r"model\.name: detectron2 trains entity_sam, not 'masa'"):
        to_detectron2(config(synthetic, tmp_path, **{"model.name": "masa"}))
