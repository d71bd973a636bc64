"""Algorithm 1 against a brute force in plain Python, its single rules by hand, and input that is wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from entitysam.masa import similarity
from entitysam.masa import tracker as tracker_module
from entitysam.masa.tracker import SETTINGS, Candidates, Tracker, TrackerSettings, TrackerState, read_setting
from entitysam.registry import ConfigError

PLAIN = TrackerSettings(gamma=0.1, beta_obj=0.01, beta=0.5)


class BruteForce:
    """Algorithm 1, candidate by candidate and track by track, on lists and dicts."""

    def __init__(self, settings, fps=30.0):
        self.s, self.fps = settings, fps
        self.tracks, self.spare, self.count = {}, [], 0

    def similarity(self, frame, r, tracks, candidates):
        s = self.s
        if s.similarity == "iou":
            row = [iou(r["box"], t["box"]) for t in tracks]
        else:
            row = []
            for t in tracks:
                product = dot(r["q"], t["q"])
                over_candidates = sum(math.exp(dot(other["q"], t["q"])) for other in candidates)
                over_tracks = sum(math.exp(dot(r["q"], other["q"])) for other in tracks)
                s1 = (math.exp(product) / over_candidates + math.exp(product) / over_tracks) / 2
                s2 = product / math.sqrt(dot(r["q"], r["q"]) * dot(t["q"], t["q"]))
                row.append(s1 if s.similarity == "bidirectional_softmax" else (s1 + s2) / 2)
        for i, t in enumerate(tracks):
            step = math.dist(middle(r["box"]), middle(t["box"]))
            if s.max_jump is not None and step > s.max_jump * (frame - t["seen"]) * 30 / self.fps:
                row[i] = -math.inf
            if s.within_category and r["category"] != t["category"]:
                row[i] = -math.inf
        return row

    def step(self, frame, given):
        s = self.s
        order = sorted(range(len(given)), key=lambda i: -given[i]["score"])
        kept = []
        for place, i in enumerate(order):
            limit = s.duplicate_iou
            if given[i]["score"] < s.weak_score:
                limit = min(limit, s.weak_duplicate_iou)
            if all(iou(given[i]["box"], given[j]["box"]) <= limit for j in order[:place]):
                kept.append(i)
        self.tracks = {k: t for k, t in self.tracks.items() if frame - t["seen"] <= s.memory_frames}
        self.spare = [t for t in self.spare if frame - t["seen"] <= s.candidate_frames]
        memory = [*self.tracks.values(), *self.spare]
        names = [*self.tracks, *[None] * len(self.spare)]
        rows = {i: self.similarity(frame, given[i], memory, [given[j] for j in kept]) for i in kept}
        ids, taken = [0] * len(given), set()
        for i in kept:
            free = [(value, -m) for m, value in enumerate(rows[i]) if m not in taken]
            best, m = max(free, default=(-math.inf, 0))
            if best > s.beta and given[i]["score"] > s.beta_obj and names[-m] is not None:
                taken.add(-m)
                ids[i] = names[-m]
        latest = []
        for i in kept:
            r = {**given[i], "seen": frame}
            if ids[i]:
                old = self.tracks[ids[i]]["q"]
                r["q"] = [s.momentum * new + (1 - s.momentum) * was for new, was in zip(r["q"], old)]
                self.tracks[ids[i]] = r
            elif given[i]["score"] > s.gamma:
                self.count += 1
                ids[i] = self.count
                self.tracks[self.count] = r
            else:
                latest.append(r)
        self.spare += latest
        return ids


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def iou(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (area - shared)


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def random_frames(seed, frames=40, things=9):
    """Things that drift, vanish and come back, with noisy embeddings, and now and then a duplicate or a stray box."""
    rng = np.random.default_rng(seed)
    looks, places = rng.normal(size=(things, 4)), rng.uniform(0, 500, (things, 2))
    for _ in range(frames):
        places += rng.normal(0, 25, places.shape)
        found = []
        for k in np.flatnonzero(rng.random(things) < 0.7):
            for _ in range(1 + (rng.random() < 0.2)):
                low, size = places[k] + rng.normal(0, 3, 2), rng.uniform(40, 60, 2)
                q = (looks[k] + rng.normal(0, 0.3, 4)) * 1.5
                found.append(
                    {"box": [*low, *low + size], "q": q.tolist(), "score": rng.random(), "category": int(k % 3)}
                )
        yield found


def tensors(found):
    if not found:
        return Candidates(torch.zeros(0, 4), torch.zeros(0))
    columns = ([r[key] for r in found] for key in ("box", "score", "q"))
    boxes, scores, embeddings = (torch.tensor(column, dtype=torch.float64) for column in columns)
    return Candidates(boxes, scores, embeddings, torch.tensor([r["category"] for r in found]))


VARIANTS = {
    **{name: (setting, 30.0) for name, setting in SETTINGS.items()},
    "video, 10 fps": (SETTINGS["video"], 10.0),
    "near only": (replace(SETTINGS["video"], max_jump=20.0), 30.0),
    "iou": (read_setting("tao", "iou"), 30.0),
    "within category": (replace(PLAIN, within_category=True), 30.0),
    "short memory": (replace(PLAIN, memory_frames=1, candidate_frames=2, gamma=0.6, beta_obj=0.4), 30.0),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_as_the_brute_force(name, seed):
    settings, fps = VARIANTS[name]
    tracker, expected = Tracker(settings, fps), BruteForce(settings, fps)
    state, continued, frame = TrackerState.initial(), 0, 0
    for found in random_frames(seed):
        frame += 1 + (frame % 7 == 3)  # frames may be missing
        before = state.next_id
        ids, state = tracker.step(state, tensors(found), frame)
        assert ids.tolist() == expected.step(frame, found)
        continued += int(((ids > 0) & (ids < before)).sum())
    assert continued > 15  # the comparison is about something


def boxes(*places, size=10.0):
    return torch.tensor([[x, 0.0, x + size, size] for x in places])


def embedding(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_similarity_by_hand():
    # One candidate and one track: both softmaxes are 1, the cosine 0.6: (1 + 0.6) / 2.
    assert similarity.appearance(embedding([3.0, 4.0]), embedding([1.0, 0.0])).item() == pytest.approx(0.8)
    # Orthogonal embeddings: products 0 everywhere, softmax over 2 tracks 1/2, over 1 candidate 1.
    two = similarity.appearance(embedding([0.0, 1.0]), embedding([1.0, 0.0], [1.0, 0.0]), with_cosine=False)
    assert two.tolist() == [[0.75, 0.75]]


def test_an_embedding_of_length_zero_is_like_nothing():
    dots = torch.zeros(1, 1)
    assert similarity.cosine(dots, embedding([0.0, 0.0]), embedding([1.0, 0.0])).item() == 0


def test_the_momentum_is_that_of_the_paper():
    tracker, state = Tracker(PLAIN), TrackerState.initial()
    for frame, q in enumerate(([1.0, 0.0], [2.0, 2.0])):
        ids, state = tracker.step(state, Candidates(boxes(0.0), torch.ones(1), embedding(q)), frame)
    assert ids.tolist() == [1]
    torch.testing.assert_close(state.tracks.embeddings, embedding([1.8, 1.6]))


@pytest.mark.parametrize(("gap", "same"), [(1, True), (10, True), (11, False)])
def test_tracks_live_ten_frames_unseen(gap, same):
    tracker, seen = Tracker(PLAIN), Candidates(boxes(0.0), torch.ones(1), embedding([1.0, 0.0]))
    _, state = tracker.step(TrackerState.initial(), seen, 0)
    for frame in range(1, gap):
        _, state = tracker.step(state, Candidates(torch.zeros(0, 4), torch.zeros(0)), frame)
    ids, _ = tracker.step(state, seen, gap)
    assert (ids.tolist() == [1]) is same


def test_a_track_is_continued_once_and_by_the_most_confident():
    tracker = Tracker(PLAIN)
    _, state = tracker.step(TrackerState.initial(), Candidates(boxes(0.0), torch.ones(1), embedding([1.0, 0.0])), 0)
    twins = Candidates(boxes(0.0, 50.0), torch.tensor([0.8, 0.9]), embedding([3.0, 0.0], [3.0, 0.0]))
    ids, _ = tracker.step(state, twins, 1)
    assert ids.tolist() == [2, 1]


def test_a_kept_candidate_draws_its_like_away_from_a_track():
    tracker = Tracker(replace(SETTINGS["bdd"], beta=0.4))
    pair = Candidates(boxes(0.0, 50.0), torch.tensor([0.9, 0.4]), embedding([2.0, 0.0], [0.0, 2.0]))
    ids, state = tracker.step(TrackerState.initial(), pair, 0)
    assert ids.tolist() == [1, 0]  # 0.4 is too weak to start a track
    like_second = Candidates(boxes(50.0), torch.tensor([0.9]), embedding([0.0, 2.0]))
    assert tracker.step(state, like_second, 1)[0].tolist() == [2]  # a track of its own
    # After two frames it is forgotten, and the only track left takes over.
    assert tracker.step(state, like_second, 2)[0].tolist() == [1]


def test_the_old_state_stays_valid():
    tracker, state = Tracker(PLAIN), TrackerState.initial()
    first = Candidates(boxes(0.0, 50.0), torch.ones(2), embedding([1.0, 0.0], [0.0, 1.0]))
    _, state = tracker.step(state, first, 0)
    before = (state.tracks.embeddings.clone(), state.tracks.boxes.clone(), state.last_seen.copy(), state.ids.copy())
    results = [
        tracker.step(state, Candidates(boxes(5.0), torch.ones(1), embedding([0.0, 1.0])), 1)[0] for _ in range(2)
    ]
    assert results[0].tolist() == results[1].tolist() == [2]
    assert torch.equal(before[0], state.tracks.embeddings)
    assert torch.equal(before[1], state.tracks.boxes)
    assert (before[2].tolist(), before[3].tolist()) == (state.last_seen.tolist(), state.ids.tolist())


def test_the_state_does_not_grow():
    tracker, state, rng = Tracker(SETTINGS["bdd"]), TrackerState.initial(), torch.Generator().manual_seed(0)
    sizes = []
    for frame in range(60):
        found = Candidates(
            boxes(*range(0, 200, 20)), torch.rand(10, generator=rng), 9 * torch.randn(10, 8, generator=rng)
        )
        _, state = tracker.step(state, found, frame)
        sizes.append(len(state))
    assert max(sizes) <= 10 * 12


@pytest.mark.parametrize("settings", [PLAIN, SETTINGS["bdd"], read_setting("video", "iou")])
def test_no_candidates_on_a_frame_or_on_all(settings):
    tracker, state = Tracker(settings), TrackerState.initial()
    nothing = Candidates(torch.zeros(0, 4), torch.zeros(0))
    ids, state = tracker.step(state, nothing, 0)
    assert (len(ids), len(state), state.next_id) == (0, 0, 1)
    something = Candidates(boxes(0.0), torch.ones(1), embedding([1.0, 0.0]))
    _, state = tracker.step(state, something, 1)
    _, state = tracker.step(state, nothing, 2)
    assert tracker.step(state, something, 3)[0].tolist() == [1]


def test_boxes_and_scores_that_mean_nothing_are_no_candidates():
    found = Candidates(
        torch.tensor([[0, 0, 10, 10], [20, 0, 20, 10], [40, 5, 50, 5], [60, 0, 55, 10], [math.nan, 0, 9, 9], [80, 0, 90, 10]]),
        torch.tensor([1, 1, 1, 1, 1, math.nan]),
        torch.eye(6),
    )  # fmt: skip
    ids, state = Tracker(PLAIN).step(TrackerState.initial(), found, 0)
    assert ids.tolist() == [1, 0, 0, 0, 0, 0]
    assert len(state) == 1


def test_duplicates():
    same = boxes(0.0, 0.5)  # IoU 0.905
    scores = torch.tensor([0.9, 0.6])
    embeddings = torch.eye(2)
    step = lambda setting, given: Tracker(setting).step(TrackerState.initial(), given, 0)[0].tolist()  # noqa: E731
    assert step(SETTINGS["bdd"], Candidates(same, scores, embeddings)) == [1, 0]
    # Confident candidates may overlap where parts and wholes are tracked together; weak ones may not.
    assert step(SETTINGS["tao"], Candidates(same, scores, embeddings)) == [1, 2]
    assert step(SETTINGS["tao"], Candidates(same, torch.tensor([0.9, 0.4]), embeddings)) == [1, 0]


def test_mixed_categories():
    first = Candidates(boxes(0.0), torch.ones(1), embedding([1.0, 0.0]), torch.tensor([3]))
    second = Candidates(boxes(0.0), torch.ones(1), embedding([1.0, 0.0]), torch.tensor([7]))
    for within, expected in ((False, [1]), (True, [2])):
        tracker = Tracker(replace(PLAIN, within_category=within))
        _, state = tracker.step(TrackerState.initial(), first, 0)
        ids, state = tracker.step(state, second, 1)
        assert ids.tolist() == expected
        assert state.tracks.categories.tolist()[-1] == 7


def test_wrong_input_is_named():
    tracker = Tracker(PLAIN)
    seen = Candidates(boxes(0.0), torch.ones(1), embedding([1.0, 0.0]))
    _, state = tracker.step(TrackerState.initial(), seen, 4)
    with pytest.raises(ValueError, match="frame 4 comes after frame 4"):
        tracker.step(state, seen, 4)
    with pytest.raises(ValueError, match="frame 5: no embeddings"):
        tracker.step(state, replace(seen, embeddings=None), 5)
    with pytest.raises(ValueError, match="frame 5: embeddings of length 3, before 2"):
        tracker.step(state, replace(seen, embeddings=embedding([1.0, 0.0, 0.0])), 5)
    with pytest.raises(ValueError, match="frame 5: the embeddings are not finite"):
        tracker.step(state, replace(seen, embeddings=embedding([1.0, math.nan])), 5)


@pytest.mark.parametrize(
    ("name", "association", "changes", "message"),
    [
        ("fast", "masa", {}, "setting: one of tao, video, bdd, not 'fast'"),
        ("tao", "dino", {}, "association: masa or iou, not 'dino'"),
        ("tao", "masa", {"betta": 1}, "tracker.betta: unknown key"),
        ("tao", "masa", {"gamma": 2.0}, "gamma: must be in 0..1"),
        ("tao", "masa", {"memory_frames": -1}, "memory_frames: must not be negative"),
        ("tao", "masa", {"similarity": "dot"}, "similarity: one of masa"),
        ("tao", "masa", {"beta": [1]}, r"tracker\.beta: must be a valid number, not '\[1\]'"),
        ("tao", "masa", {"beta": math.nan}, r"tracker\.beta: must be in -1\.\.1, not nan"),
        ("tao", "masa", {"gamma": "0.5"}, r"tracker\.gamma: must be a valid number, not '0\.5'"),
        ("tao", "masa", {"gamma": True}, r"tracker\.gamma: must be a valid number, not 'True'"),
        ("tao", "masa", {"gamma": None}, r"tracker\.gamma: must be a valid number, not 'None'"),
        ("tao", "masa", {"memory_frames": 1.5}, r"tracker\.memory_frames: must be a valid integer, not '1\.5'"),
        ("tao", "masa", {"max_jump": math.inf}, r"tracker\.max_jump: must be positive and finite"),
        ("tao", "masa", {"within_category": 1}, r"tracker\.within_category: must be a valid boolean, not '1'"),
        ("tao", "masa", {"similarity": {"a": 1}}, r"tracker\.similarity: must be a valid string"),
        ("tao", "masa", {"name": "x"}, r"tracker\.name: unknown key"),
    ],
)
def test_wrong_settings_name_their_key(name, association, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_setting(name, association, **changes)


def test_the_published_settings():
    table = {name: (s.gamma, s.beta_obj, s.beta, s.momentum, s.memory_frames) for name, s in SETTINGS.items()}
    assert table == {
        "tao": (1e-4, 1e-4, 0.5, 0.8, 10),
        "video": (0.1, 0.01, 0.5, 0.8, 10),
        "bdd": (0.5, 0.3, 0.6, 0.8, 10),
    }


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of any tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return result


def crowd(count, seed=0):
    """Candidates in a dense field of small boxes, many of them duplicates, with random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    corner = 1000 * torch.rand(count, 2, generator=generator)
    found = torch.cat([corner, corner + 5 + 20 * torch.rand(count, 2, generator=generator)], 1)
    features = torch.randn(count, 8, generator=generator)
    return Candidates(found, torch.rand(count, generator=generator), features, torch.arange(count) % 3)


@pytest.mark.parametrize("name", ["tao", "video", "bdd", "iou"])
def test_blocks_of_rows_do_not_change_the_result(name, monkeypatch):
    settings = read_setting("tao", "iou") if name == "iou" else replace(SETTINGS[name], within_category=True)
    results = []
    for elements in (tracker_module.BLOCK_ELEMENTS, 700):
        monkeypatch.setattr(tracker_module, "BLOCK_ELEMENTS", elements)
        state, ids = TrackerState.initial(), []
        for frame in range(3):
            found, state = Tracker(settings).step(state, crowd(60, seed=frame % 2), frame)
            ids.append(found.tolist())
        results.append(ids)
    assert results[0] == results[1]
    assert results[0][2] != [0] * 60


@pytest.mark.parametrize("settings", [SETTINGS["video"], read_setting("tao", "iou")])
def test_thousands_of_boxes_on_a_frame_take_bounded_memory(settings):
    """No tensor of all pairs is made: 20,000 boxes a frame once took 6.7 GB."""
    state, tracker = TrackerState.initial(), Tracker(settings)
    with LargestTensor() as memory:
        for frame in range(2):
            ids, state = tracker.step(state, crowd(4000, seed=frame), frame)
    assert (ids > 0).sum() > 1000
    assert memory.largest <= 2 * tracker_module.BLOCK_ELEMENTS  # two coordinates of each pair
