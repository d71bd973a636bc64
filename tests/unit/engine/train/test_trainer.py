"""The training loop with the real network in its smallest size: exact resume, accumulation, and every way a run can end."""

import json
import os
import resource
import signal

import pytest
import torch
from support.processes import finish, forked
from support.training import SIDE, SMALL, clip_of, clips_from, run_config, small_network

from entitysam.engine.train.state import (
    CheckpointFolder,
    TrainingState,
    random_state,
    save_atomically,
    set_random_state,
)
from entitysam.engine.train.trainer import NonFiniteLoss, clip_generator, fit
from entitysam.io.files import OutputError
from entitysam.losses import EntityCriterion
from entitysam.registry import ConfigError
from entitysam.structures import Clip, Targets

CPU = torch.device("cpu")


def train(folder, source=clips_from, model=None, resume=False, evaluate=None, **changes):
    model = model or small_network()
    config = run_config(folder, **changes)
    finished = fit(model, EntityCriterion(num_points=128), source, config, CPU, resume, evaluate)
    return model, finished


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_tensors(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_loss_falls_and_only_trained_parameters_move(tmp_path, amp):
    before = small_network().state_dict()
    changes = {"optim__max_iters": 25, "optim__lr": 3e-3, "train__batch_size": 1, "train__amp": amp}
    model, finished = train(tmp_path, source=lambda start: iter([clip_of(0)] * 1000), **changes)
    assert finished
    totals = [row["total"] for row in rows(tmp_path)]
    assert len(totals) == 25
    assert totals[-1] < 0.9 * totals[0]
    still = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    buffers = {name for name, _ in model.named_buffers()}
    assert still == {name for name in before if name.startswith("dual_encoder.semantic_encoder")} | buffers & set(
        before
    )


def test_resume_is_exact(tmp_path):
    straight, _ = train(tmp_path / "straight", optim__max_iters=7, train__save_period=3)
    train(tmp_path / "parts", optim__max_iters=7, train__save_period=3, source=dying_after(3 * 2))
    torch.randn(5)  # whatever happens between the two halves
    resumed, _ = train(tmp_path / "parts", optim__max_iters=7, train__save_period=3, resume=True)
    assert_same_tensors(straight.state_dict(), resumed.state_dict())
    a, b = (torch.load(tmp_path / run / "checkpoint_0000007.pt", weights_only=True) for run in ("straight", "parts"))
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    for index, moments in a["optimizer"]["state"].items():
        assert_same_tensors(moments, b["optimizer"]["state"][index])
    assert (a["clips"], a["iteration"]) == (b["clips"], b["iteration"]) == (14, 7)
    assert torch.equal(a["random"][0]["torch"], b["random"][0]["torch"])
    names = ("iteration", "total", "entity", "mask", "dice", "iou", "lr", "grad_norm")
    assert [[row[n] for n in names] for row in rows(tmp_path / "straight")] == [
        [row[n] for n in names] for row in rows(tmp_path / "parts")
    ]


def dying_after(clips):
    """A source that asks the process to stop, as a cluster does, once so many clips were taken."""

    def source(start):
        for count, clip in enumerate(clips_from(start), 1):
            if count == clips:
                os.kill(os.getpid(), signal.SIGTERM)
            yield clip

    return source


def test_sigterm_saves_and_leaves(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    _, finished = train(tmp_path, source=dying_after(4), optim__max_iters=50)
    assert not finished
    assert [path.name for path in CheckpointFolder(tmp_path, 3).files()] == ["checkpoint_0000002.pt"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_torn_checkpoint_falls_back(tmp_path, caplog):
    straight, _ = train(tmp_path / "straight", optim__max_iters=6, train__save_period=2)
    train(tmp_path / "torn", optim__max_iters=4, train__save_period=2)
    newest = tmp_path / "torn" / "checkpoint_0000004.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    resumed, _ = train(tmp_path / "torn", optim__max_iters=6, train__save_period=2, resume=True)
    assert "checkpoint_0000004.pt cannot be read" in caplog.text
    assert_same_tensors(straight.state_dict(), resumed.state_dict())


def test_keep_last_and_best(tmp_path):
    scores = iter([30.0, 50.0, 40.0, 20.0])

    def evaluate(model, iteration):
        assert not model.training
        return {"VEQ": next(scores), "SQ": 1.0}

    train(
        tmp_path, optim__max_iters=4, train__save_period=1, train__keep_last=2, train__eval_period=1, evaluate=evaluate
    )
    assert [path.name for path in CheckpointFolder(tmp_path, 2).files()] == [
        "checkpoint_0000003.pt",
        "checkpoint_0000004.pt",
    ]
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (best["iteration"], best["best"]) == (2, 50.0)
    assert [row["eval/VEQ"] for row in rows(tmp_path) if "eval/VEQ" in row] == [30, 50, 40, 20]


def test_checkpoint_carries_its_config(tmp_path):
    train(tmp_path, optim__max_iters=1, seed=11)
    content = torch.load(tmp_path / "checkpoint_0000001.pt", weights_only=True)
    assert content["config"]["seed"] == 11
    assert content["config"]["optim"]["max_iters"] == 1
    assert not list(tmp_path.glob("*.partial"))


def test_fresh_start_never_overwrites(tmp_path):
    train(tmp_path, optim__max_iters=1)
    with pytest.raises(ConfigError, match="--resume"):
        train(tmp_path, optim__max_iters=1)


def test_resume_from_another_model(tmp_path):
    train(tmp_path, optim__max_iters=1)
    other = small_network(entity_decoder={**SMALL["entity_decoder"], "hidden": 24})
    name = r"entity_decoder\.layers\.0\.mlp\.layers\.0\.weight"
    with pytest.raises(ValueError, match=rf"checkpoint_0000001\.pt: checkpoint of another model: '{name}'"):
        train(tmp_path, model=other, resume=True)


def test_resume_of_nothing_starts_from_the_beginning(tmp_path, caplog):
    _, finished = train(tmp_path, optim__max_iters=1, resume=True)
    assert finished
    assert "nothing to resume" in caplog.text


def test_accumulated_step_is_the_mean_over_its_clips(tmp_path):
    """One step on two clips against the gradient of both losses, worked out in one graph."""
    model, _ = train(tmp_path, optim__max_iters=1, optim__clip_norm=0.0, optim__weight_decay=0.0)
    reference, criterion = small_network().train(), EntityCriterion(num_points=128)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3 / 2, weight_decay=0.0)  # warm-up: half the rate
    clips = [clip_of(0, targets=2), clip_of(1, targets=1)]
    losses = [
        criterion(reference(clip.frames), clip.targets, clip_generator(0, clip.index, CPU), num_masks=3.0)["total"]
        for clip in clips
    ]
    (sum(losses) / 2).backward()
    optimizer.step()
    for (name, ours), expected in zip(model.state_dict().items(), reference.state_dict().values()):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6, msg=name)
    assert rows(tmp_path)[0]["total"] == pytest.approx(sum(losses).item() / 2, rel=1e-5)


def test_full_model_gradient_clipping(tmp_path):
    before = small_network()
    settings = {"optim__max_iters": 1, "optim__warmup_iters": 0, "optim__weight_decay": 0.0}
    clipped, _ = train(tmp_path, optim__clip_norm=1e-12, **settings)
    # With gradients far below AdamW's epsilon hardly anything moves; an unclipped first step moves everything by lr.
    for ours, old in zip(clipped.parameters(), before.parameters()):
        assert (ours - old).abs().max() < 1e-5
    assert rows(tmp_path)[0]["grad_norm"] > 0.01


def test_non_finite_loss_stops_with_a_dump(tmp_path):
    model = small_network()

    def overflow(part, arguments, output):
        if torch.equal(arguments[0], clip_of(5, targets=0).frames):
            output.mask_logits = output.mask_logits * float("inf")
        return output

    model.register_forward_hook(overflow)
    with pytest.raises(NonFiniteLoss, match=r"iteration 2: .*image_4\.jpg, image_5\.jpg; saved"):
        train(tmp_path, model=model)
    (dump,) = tmp_path.glob("non_finite_*.pt")
    content = torch.load(dump, weights_only=True)
    assert content["sources"] == ["image_4.jpg", "image_5.jpg"]
    assert torch.equal(content["frames"][1], clip_of(5).frames)
    assert all(torch.isfinite(tensor).all() for tensor in content["model"].values())


def test_clip_without_targets_changes_nothing_but_decay(tmp_path):
    empty = Clip(
        clip_of(0).frames, Targets(torch.zeros(0, 2, SIDE, SIDE, dtype=torch.bool), torch.zeros(0).long()), "e", 0
    )
    before = small_network()
    model, finished = train(tmp_path, source=lambda start: iter([empty] * 100), optim__weight_decay=0.0)
    assert finished
    assert_same_tensors(model.state_dict(), before.state_dict())


@pytest.mark.parametrize(("amp", "rtol"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_clips_of_a_batch_are_the_same_as_one_by_one(tmp_path, amp, rtol):
    def source(start):
        return (clip_of(index, frames=1, targets=(2, 1, 3, 2, 0)[index % 5]) for index in range(start, 1000))

    batches, models = [], []
    for width in (1, 3):  # 4 = 1 + 1 + 1 + 1 = 3 + 1
        model = small_network()
        model.register_forward_pre_hook(lambda part, arguments: batches.append(len(arguments[0])))
        settings = {"optim__max_iters": 2, "train__batch_size": 4, "train__clips_per_forward": width, "train__amp": amp}
        models.append(train(tmp_path / str(width), source=source, model=model, **settings)[0])
    assert batches == [1] * 8 + [3, 1] * 2
    one, three = ([row["total"] for row in rows(tmp_path / width)] for width in ("1", "3"))
    assert three == pytest.approx(one, rel=rtol)
    if amp == "fp32":
        for name, expected in models[0].state_dict().items():
            torch.testing.assert_close(models[1].state_dict()[name], expected, rtol=1e-3, atol=1e-4, msg=name)


def test_clips_of_different_lengths_cannot_be_batched(tmp_path):
    def uneven(start):
        for index in range(start, 10):
            clip = clip_of(index)
            yield (
                clip
                if index % 2
                else Clip(clip.frames[:1], Targets(clip.targets.masks[:, :1], clip.targets.categories), "short")
            )

    with pytest.raises(ConfigError, match=r"train\.clips_per_forward: more than 1 needs clips of one length"):
        train(tmp_path, source=uneven, train__batch_size=2, train__clips_per_forward=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"train__batch_size": 0},
        {"train__clips_per_forward": 0},
        {"train__amp": "fp8"},
        {"optim__schedule": "poly"},
    ],
)
def test_bad_settings(tmp_path, changes):
    with pytest.raises(ConfigError, match=next(iter(changes)).replace("__", r"\.")):
        train(tmp_path, **changes)


def test_images_and_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    train(tmp_path, optim__max_iters=2, train__image_period=1, train__tensorboard=True)
    from PIL import Image

    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["clip_0000001.png", "clip_0000002.png"]
    assert Image.open(tmp_path / "images" / "clip_0000001.png").size == (2 * 256, 3 * 256)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("total")] == [1, 2]
    assert len(events.Images("clip")) == 2


def test_random_states_round_trip(tmp_path):
    import random

    import numpy as np

    path = tmp_path / "state.pt"
    torch.save(random_state(), path)
    first = (random.random(), np.random.rand(), torch.rand(()).item())
    set_random_state(torch.load(path, weights_only=True))
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == first


def test_not_a_training_checkpoint():
    model = small_network()
    state = TrainingState(model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(ValueError, match="no model, optimizer"):
        state.load_state_dict({})


def test_the_moving_average_is_what_is_saved_and_resumed(tmp_path):
    """By hand over three steps: average = decay * average + (1 - decay) * weights, with a smaller decay in the first iterations."""
    settings = {"optim__max_iters": 3, "train__save_period": 1, "train__ema": 0.9, "train__keep_last": 0}
    train(tmp_path / "run", **settings)
    average = small_network().state_dict()
    for step in (1, 2, 3):
        saved = torch.load(tmp_path / "run" / f"checkpoint_{step:07d}.pt", weights_only=True)
        decay = min(0.9, (1 + step) / (10 + step))
        average = {name: decay * tensor + (1 - decay) * saved["model"][name] for name, tensor in average.items()}
        for name, tensor in average.items():
            assert torch.allclose(saved["ema"][name], tensor, atol=1e-6), (step, name)
    final = torch.load(tmp_path / "run" / "model_final.pt", weights_only=True)["model"]
    assert_same_tensors(final, saved["ema"])
    train(tmp_path / "parts", source=dying_after(2 * 2), **settings)
    train(tmp_path / "parts", resume=True, **settings)
    assert_same_tensors(torch.load(tmp_path / "parts" / "model_final.pt", weights_only=True)["model"], final)


# Interruptions in an evaluation, other configs, full disks ------------------------------------------------------------


class Interrupted(Exception):
    """Raised by an evaluation that does not come to its end."""


def test_everything_is_saved_before_an_evaluation(tmp_path):
    """An error or a kill in a long evaluation loses no training, and the resumed run evaluates again."""

    def never_ends(model, iteration):
        raise Interrupted

    changes = {"optim__max_iters": 2, "train__save_period": 100}
    with pytest.raises(Interrupted):
        train(tmp_path, evaluate=never_ends, **changes)
    assert (tmp_path / "checkpoint_0000002.pt").is_file()
    assert (tmp_path / "model_final.pt").is_file()
    evaluated = []
    _, finished = train(
        tmp_path, resume=True, evaluate=lambda model, k: evaluated.append(k) or {"VEQ": 40.0}, **changes
    )
    assert finished
    assert evaluated == [2]
    assert torch.load(tmp_path / "best.pt", weights_only=True)["best"] == 40.0


def test_a_finished_evaluation_is_not_repeated(tmp_path):
    """Also where it is not the best one; a killed one that has written its row writes it once."""
    scores = {1: 50.0, 2: 30.0}
    changes = {"optim__max_iters": 2, "train__save_period": 100, "train__eval_period": 1}
    train(tmp_path, evaluate=lambda model, k: {"VEQ": scores[k]}, **changes)

    def resumed(evaluated):
        train(tmp_path, resume=True, evaluate=lambda model, k: evaluated.append(k) or {"VEQ": scores[k]}, **changes)
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return evaluated, [row["eval/VEQ"] for row in rows if "eval/VEQ" in row]

    assert resumed([]) == ([], [50.0, 30.0])
    path = tmp_path / "checkpoint_0000002.pt"
    torch.save({**torch.load(path, weights_only=True), "evaluated": 1}, path)  # as before the evaluation
    assert resumed([]) == ([2], [50.0, 30.0])
    assert torch.load(tmp_path / "best.pt", weights_only=True)["best"] == 50.0


def test_best_value_survives_a_resume_from_the_checkpoint_before_its_evaluation(tmp_path):
    scores = iter([50.0, 30.0])
    changes = {"train__eval_period": 1, "evaluate": lambda model, k: {"VEQ": next(scores)}}
    train(tmp_path, optim__max_iters=1, **changes)
    train(tmp_path, resume=True, optim__max_iters=2, **changes)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["iteration"] == 1


def test_an_evaluation_leaves_the_random_states_of_the_run(tmp_path):
    drawn = []

    def source(start):
        for clip in clips_from(start):
            drawn.append(torch.rand(()).item())
            yield clip

    train(tmp_path / "a", source, optim__max_iters=2)
    evaluate = lambda model, k: {"VEQ": torch.rand(()).item()}  # noqa: E731
    train(tmp_path / "b", source, optim__max_iters=2, train__eval_period=1, evaluate=evaluate)
    assert drawn[:4] == drawn[4:]


def test_resume_compares_configs(tmp_path, caplog):
    train(tmp_path, optim__max_iters=1, seed=1)
    with pytest.raises(ConfigError, match=r"--resume: .*seed was 1 and is 2; choose another output_dir"):
        train(tmp_path, optim__max_iters=2, seed=2, resume=True)
    assert "seed: 1" in (tmp_path / "config.yaml").read_text()
    train(tmp_path, optim__max_iters=2, seed=1, resume=True)
    assert "optim.max_iters was 1 and is 2" in caplog.text
    assert "max_iters: 2" in (tmp_path / "config.yaml").read_text()
    assert "max_iters: 1" in (tmp_path / "config.1.yaml").read_text()


def test_a_full_disk_is_one_line_with_the_path(tmp_path):
    """The limit on the size of a file stands for the disk; what was written before stays whole."""
    path, message = tmp_path / "checkpoint.pt", tmp_path / "message"

    def fill_the_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        save_atomically({"a": 1}, path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(OutputError) as error:
            save_atomically({"a": torch.zeros(100_000)}, path)
        message.write_text(str(error.value))

    assert finish(forked(fill_the_disk)) == 0
    assert message.read_text().startswith(f"{path}: cannot be written")
    assert "\n" not in message.read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt", "message"]
    assert torch.load(path, weights_only=True) == {"a": 1}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run.*cannot be written"):
        train(tmp_path / "file" / "run", optim__max_iters=1)
