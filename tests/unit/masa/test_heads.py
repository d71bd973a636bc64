"""Pooling, sampling, detection head and track head on cases made by hand."""

import pytest
import torch
from torchvision.ops import box_iou, roi_align

from entitysam.masa.detection_head import LOSSES, BoxPredictor, DetectionHead, StridedAnchors
from entitysam.masa.pooling import PyramidRoIAlign
from entitysam.masa.sampling import assign, sample_boxes
from entitysam.masa.track_head import TrackHead

STRIDES = (4, 8, 16, 32)


def box_of_side(side: float) -> list[float]:
    return [0.0, 0.0, side, side]


def test_levels_by_size():
    boxes = torch.tensor([box_of_side(side) for side in (1, 111, 113, 223, 225, 447, 449, 5000)])
    assert PyramidRoIAlign(STRIDES).levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_pooling_reads_each_box_from_its_level():
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 512 // stride, 512 // stride, requires_grad=True) for stride in STRIDES]
    boxes = [torch.tensor([[8.0, 8, 60, 70], [10, 20, 330, 340]]), torch.tensor([[100.0, 100, 280, 260]])]
    pooled = PyramidRoIAlign(STRIDES)(maps, boxes)
    for row, (image, level, box) in enumerate([(0, 0, boxes[0][0]), (0, 2, boxes[0][1]), (1, 1, boxes[1][0])]):
        expected = roi_align(maps[level][image : image + 1], [box[None]], 7, 1 / STRIDES[level], 0, aligned=True)
        torch.testing.assert_close(pooled[row], expected[0])
    pooled.sum().backward()
    assert maps[3].grad.abs().sum() == 0  # read by no box, but in the graph


def test_no_boxes_at_all():
    maps = [torch.randn(1, 64, 64 // stride, 64 // stride) for stride in STRIDES]
    assert TrackHead(64, STRIDES, hidden=16)(maps, [torch.zeros(0, 4)]).shape == (0, 256)


def test_track_head_without_hidden_layer():
    head = TrackHead(64, STRIDES, hidden=0, embedding=12)
    maps = [torch.randn(1, 64, 64 // stride, 64 // stride) for stride in STRIDES]
    assert head(maps, [torch.tensor([box_of_side(30), box_of_side(500)])]).shape == (2, 12)
    assert head.hidden is None


def test_anchors_stand_at_the_corners_of_cells():
    anchors = StridedAnchors((8, 16))
    maps = [torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 2)]
    images = type("Images", (), {"image_sizes": [(16, 24)]})
    (found,) = anchors(images, maps)
    assert len(found) == 3 * (6 + 2)
    assert found[1].tolist() == [-32, -32, 32, 32]  # square, of 8 cells
    assert found[4].tolist() == [-24, -32, 40, 32]  # one cell to the right
    wide, tall = found[0], found[2]
    assert ((wide[3] - wide[1]) / (wide[2] - wide[0])).item() == pytest.approx(0.5)
    assert ((tall[3] - tall[1]) / (tall[2] - tall[0])).item() == pytest.approx(2)
    assert found[18:][1].tolist() == [-64, -64, 64, 64]


def test_predictor_keeps_the_published_order():
    predictor = BoxPredictor(2)
    predictor.classes.weight.data = torch.tensor([[1.0, 0], [0, 1]])  # object, background
    logits, codes = predictor(torch.tensor([[3.0, 7.0]]))
    assert logits.tolist() == [[7, 3]]  # background, object
    assert codes.shape == (1, 8)
    assert (codes[:, :4] == codes[:, 4:]).all()


@pytest.fixture
def head():
    torch.manual_seed(0)
    return DetectionHead(
        64, (8, 16, 32), roi_levels=2, hidden=16, num_anchors=32, num_samples=32, num_proposals=(50, 60)
    )


def pyramid(count: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 64, 128 // stride, 128 // stride, generator=generator) for stride in (8, 16, 32)]


@pytest.mark.parametrize("boxes", [[[10.0, 10, 70, 60], [64, 32, 128, 128]], []])
def test_detection_losses_have_gradients(head, boxes):
    losses = head.train().losses(pyramid(), [(128, 128)], [torch.tensor(boxes).view(-1, 4)])
    assert list(losses) == list(LOSSES)
    sum(losses.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    if not boxes:
        assert losses["rpn_box"] == losses["roi_box"] == 0


def test_proposals_are_ordered_limited_and_apart(head):
    head.eval()
    head.roi.score_thresh = 0.0
    boxes, scores = head.propose(pyramid(), (100, 120), limit=7)
    assert len(boxes) == 7
    assert (scores.diff() <= 0).all()
    assert boxes[:, 2].max() <= 120
    assert boxes[:, 3].max() <= 100
    assert (box_iou(boxes, boxes) - torch.eye(7)).max() <= 0.5


def test_regions_are_those_of_inference(head):
    head.train()
    assert [len(one) for one in head.regions(pyramid(2), [(128, 128)] * 2, limit=5)] == [5, 5]
    assert head.rpn.training


BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])


def test_assignment_thresholds():
    proposals = torch.tensor(
        [[0.0, 0, 10, 7.1], [0, 0, 10, 6.9], [0, 0, 10, 3.1], [0, 0, 10, 2.9], [20, 0, 30, 10], [90, 90, 99, 99]]
    )
    assert assign(proposals, BOXES).tolist() == [0, -2, -2, -1, 1, -1]
    assert assign(proposals[:2], BOXES[:0]).tolist() == [-1, -1]


def test_instances_are_sampled_evenly_and_background_with_measure():
    many = BOXES[:1].repeat(200, 1)
    far = torch.tensor([[50.0, 50, 60, 60]]).repeat(200, 1)
    for seed in range(5):
        _, rows = sample_boxes(
            torch.cat([many, BOXES[1:].repeat(3, 1), far]), BOXES, 16, torch.Generator().manual_seed(seed)
        )
        assert (rows == 0).sum() == 4
        assert (rows == 1).sum() == 4
        assert (rows == -1).sum() == 8
    _, rows = sample_boxes(far, BOXES, 100, torch.Generator())
    assert sorted(rows.tolist()) == [-1] * 6 + [0, 1]  # the instances' own boxes, three of background with each


def test_sampling_follows_its_generator():
    proposals = torch.rand(50, 4, generator=torch.Generator().manual_seed(3)).cumsum(1) * 20
    first, second = (sample_boxes(proposals, BOXES, 8, torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    boxes, rows = sample_boxes(proposals[:0], BOXES[:0], 8, torch.Generator())
    assert boxes.shape == (0, 4)
    assert len(rows) == 0
