"""The training loop with a stand-in network: exact resume, accumulation, and every way a run can end."""

import json
import os
import signal

import pytest
import torch
from support.standin import StandIn, clip_of, clips_from, run_config

from entitysam.engine.train.state import CheckpointFolder, TrainingState, random_state, set_random_state
from entitysam.engine.train.trainer import NonFiniteLoss, clip_generator, fit
from entitysam.losses import EntityCriterion
from entitysam.registry import ConfigError
from entitysam.structures import Clip, Targets

CPU = torch.device("cpu")


def train(folder, source=clips_from, model=None, resume=False, evaluate=None, **changes):
    torch.manual_seed(0)
    model = model or StandIn()
    config = run_config(folder, **changes)
    finished = fit(model, EntityCriterion(num_points=128), source, config, CPU, resume, evaluate)
    return model, finished


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_tensors(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_loss_falls_and_only_trained_parameters_move(tmp_path):
    torch.manual_seed(0)
    before = StandIn().state_dict()
    model, finished = train(
        tmp_path, source=lambda start: iter([clip_of(0)] * 1000), optim__max_iters=60, train__amp="bf16"
    )
    assert finished
    totals = [row["total"] for row in rows(tmp_path)]
    assert len(totals) == 60
    assert totals[-1] < 0.8 * totals[0]
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if not name.startswith(("frozen", "idle"))}


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
    other = StandIn()
    other.entity_head = torch.nn.Linear(8, 3)
    with pytest.raises(ValueError, match=r"checkpoint_0000001\.pt: checkpoint of another model: 'entity_head\.weight'"):
        train(tmp_path, model=other, resume=True)


def test_resume_of_nothing_starts_from_the_beginning(tmp_path, caplog):
    _, finished = train(tmp_path, optim__max_iters=1, resume=True)
    assert finished
    assert "nothing to resume" in caplog.text


def test_accumulated_step_is_the_mean_over_its_clips(tmp_path):
    """One step on two clips against the gradient of both losses, worked out in one graph."""
    model, _ = train(tmp_path, optim__max_iters=1, optim__clip_norm=0.0, optim__weight_decay=0.0)
    torch.manual_seed(0)
    reference, criterion = StandIn(), EntityCriterion(num_points=128)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-2 / 2, weight_decay=0.0)  # warm-up: half the rate
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
    torch.manual_seed(0)
    before = StandIn()
    settings = {"optim__max_iters": 1, "optim__warmup_iters": 0, "optim__weight_decay": 0.0}
    clipped, _ = train(tmp_path, optim__clip_norm=1e-12, **settings)
    # Gradients far below AdamW's epsilon: next to nothing moves, where an unclipped first step moves all by lr.
    for ours, old in zip(clipped.parameters(), before.parameters()):
        assert (ours - old).abs().max() < 1e-5
    assert rows(tmp_path)[0]["grad_norm"] > 0.01


def test_non_finite_loss_stops_with_a_dump(tmp_path):
    class Breaks(StandIn):
        def forward(self, frames):
            output = super().forward(frames)
            if torch.equal(frames, clip_of(5, targets=0).frames):
                output.mask_logits = output.mask_logits * float("inf")
            return output

    with pytest.raises(NonFiniteLoss, match=r"iteration 2: .*image_4\.jpg, image_5\.jpg; saved"):
        train(tmp_path, model=Breaks())
    (dump,) = tmp_path.glob("non_finite_*.pt")
    content = torch.load(dump, weights_only=True)
    assert content["sources"] == ["image_4.jpg", "image_5.jpg"]
    assert torch.equal(content["frames"][1], clip_of(5).frames)
    assert all(torch.isfinite(tensor).all() for tensor in content["model"].values())


def test_clip_without_targets_changes_nothing_but_decay(tmp_path):
    empty = Clip(clip_of(0).frames, Targets(torch.zeros(0, 2, 32, 32, dtype=torch.bool), torch.zeros(0).long()), "e", 0)
    torch.manual_seed(0)
    before = StandIn()
    model, finished = train(tmp_path, source=lambda start: iter([empty] * 100), optim__weight_decay=0.0)
    assert finished
    assert_same_tensors(model.state_dict(), before.state_dict())


def test_clips_together_are_the_same_as_one_by_one(tmp_path):
    class Together(StandIn):
        widths = set()

        def forward(self, frames):
            self.widths.add(len(frames) if frames.ndim == 5 else 0)
            return (
                [super(Together, self).forward(clip) for clip in frames]
                if frames.ndim == 5
                else super().forward(frames)
            )

    def source(start):
        return (clip_of(index, frames=1, targets=(2, 1, 3, 2, 0)[index % 5]) for index in range(start, 1000))

    models = []
    for width in (1, 2, 3):
        torch.manual_seed(0)
        settings = {"optim__max_iters": 3, "train__batch_size": 4, "train__clips_per_forward": width}
        models.append(train(tmp_path / str(width), source=source, model=Together(), **settings)[0])
    assert Together.widths == {0, 2, 3}  # 4 = 1 + 1 + 1 + 1 = 2 + 2 = 3 + 1
    for model in models[1:]:
        for name, expected in models[0].state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert [row["total"] for row in rows(tmp_path / "3")] == pytest.approx(
        [row["total"] for row in rows(tmp_path / "1")]
    )


def test_clips_of_different_lengths_do_not_go_together(tmp_path):
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


def test_pictures_and_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    train(tmp_path, optim__max_iters=2, train__image_period=1, train__tensorboard=True)
    from PIL import Image

    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["clip_0000001.png", "clip_0000002.png"]
    assert Image.open(tmp_path / "pictures" / "clip_0000001.png").size == (2 * 256, 3 * 256)
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
    model = StandIn()
    state = TrainingState(model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(ValueError, match="no model, optimizer"):
        state.load_state_dict({})


def test_the_moving_average_is_what_is_saved_and_resumed(tmp_path):
    """By hand over three steps: average = decay * average + (1 - decay) * weights, with the decay of young runs."""
    settings = {"optim__max_iters": 3, "train__save_period": 1, "train__ema": 0.9, "train__keep_last": 0}
    train(tmp_path / "run", **settings)
    torch.manual_seed(0)
    average = StandIn().state_dict()
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
