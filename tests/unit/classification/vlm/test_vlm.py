"""The vision-language classifier against a server on loopback that checks what it gets and fails in every way."""

import asyncio
import json
import logging
import math
import random
import time

import numpy as np
import pytest
from support.chat_server import KEY, digest, serving

from entitysam.classification.answer_cache import AnswerCache, default_folder
from entitysam.classification.classifier import UNKNOWN, Answer, ClassifierError
from entitysam.classification.labels import parse_labels
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.classification.vlm import rate_limiter
from entitysam.classification.vlm.classifier import vision_language_classifier
from entitysam.classification.vlm.client import retry_after
from entitysam.classification.vlm.confidence import answer_confidence
from entitysam.classification.vlm.cost import Prices, picture_tokens
from entitysam.classification.vlm.prompts import MalformedReply, Prompts
from entitysam.classification.vlm.rate_limiter import RateLimiter
from entitysam.registry import CLASSIFIERS, ConfigError, build

LABELS = parse_labels("person, dog, grass, traffic light, ice cream")
NAMES = [label.name for label in LABELS]
SMALL = VisualPrompt(min_side=48, max_side=48)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def pictures_of(count, prompt=SMALL):
    """Different pictures, and the class of each by its digest."""
    rng = np.random.default_rng(count)
    mask = np.zeros((24, 24), bool)
    mask[4:20, 6:18] = True
    frames = rng.integers(0, 160, (count, 24, 24, 3), dtype=np.uint8)
    pictures = [prompt.encode(frame, mask) for frame in frames]
    truth = {digest(picture): NAMES[rng.integers(len(NAMES))] for picture in pictures}
    assert len(truth) == count
    return pictures, truth


def classifier(server, tmp_path, labels=LABELS, **options):
    node = {"name": "vlm", "base_url": server.base_url, "cache": str(tmp_path / "answers"), "backoff": 0.01, **options}
    return build(CLASSIFIERS, node, "classifier", labels=labels, visual_prompt=SMALL)


def truth_of(pictures, truth):
    return [truth[digest(picture)] for picture in pictures]


def test_every_picture_gets_its_class_and_a_second_run_sends_nothing(tmp_path):
    pictures, truth = pictures_of(21)
    done = []
    with serving(truth, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path)
        answers = vlm.classify([*pictures, pictures[0]], done.append)
        assert [answer.name for answer in answers] == [*truth_of(pictures, truth), truth[digest(pictures[0])]]
        assert all(NAMES[answer.index] == answer.name and answer.confidence == 1 for answer in answers)
        assert not server.problems
        assert server.requests == 3
        assert set(server.delivered.values()) == {1}
        assert sum(done) == 22
        body = server.bodies[0]
        assert (body["model"], body["temperature"], body["response_format"]) == ("gpt-4o", 0, {"type": "json_object"})
        assert vlm.usage.prompt_tokens == 300
        assert vlm.statistics()["cost"] == round((300 * 2.5 + 30 * 10) / 1e6, 4)

        again = classifier(server, tmp_path)
        assert again.classify(pictures) == answers[:21]
        assert server.requests == 3
        assert again.usage.cached == 21
        other = classifier(server, tmp_path, model="another")  # the key of an answer has model and list in it
        assert other.classify(pictures[:1]) == answers[:1]
        assert server.requests == 4
        classifier(server, tmp_path, labels=LABELS[:4] + LABELS[4:]).classify(pictures)
        assert server.requests == 4
        classifier(server, tmp_path, labels=LABELS[::-1]).classify(pictures[:1])
        assert server.requests == 5


KINDS = ["429", "500", "503", "hang", "half_body", "half_answer", "wrong_json", "prose", "out_of_range", "fewer", "more",
         "name_beside_list", "fenced"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_is_survived(tmp_path, kind):
    pictures, truth = pictures_of(6)
    fault = lambda number: kind if number == 0 else None  # noqa: E731
    with serving(truth, fault, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, batch_size=3, concurrency=1, timeout=4 if kind == "hang" else 60)
        assert [answer.name for answer in vlm.classify(pictures)] == truth_of(pictures, truth)
        assert server.faults[kind] == 1
        assert not server.problems
        if kind == "hang":  # a slow machine may see more time-outs than the one that is meant
            assert vlm.usage.faults["time-out"] >= 1
            assert server.requests >= 3
            return
        assert server.requests == (2 if kind == "fenced" else 3)
        assert set(server.delivered.values()) == {1}


def test_a_thousand_pictures_with_a_tenth_of_faults(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    pictures, truth = pictures_of(1000)
    rng = random.Random(5)
    plan = [rng.choice(KINDS) if rng.random() < 0.1 else None for _ in range(2000)]
    with serving(truth, plan.__getitem__, sides=(48, 48), hang=1) as server:
        vlm = classifier(server, tmp_path, concurrency=12)
        answers = vlm.classify(pictures)
        assert len(answers) == 1000
        assert [answer.name for answer in answers] == truth_of(pictures, truth)
        assert set(server.delivered.values()) == {1}  # none lost, none asked again after its answer
        assert len(server.delivered) == 1000
        assert sum(count for kind, count in server.faults.items() if kind) >= 8
        assert not server.problems
        assert 1 < server.most_at_once <= 12
        assert vlm.usage.unknown == 0
    assert len(list((tmp_path / "answers").rglob("*.json"))) == 1000
    kept = b"".join(path.read_bytes() for path in (tmp_path / "answers").rglob("*.json"))
    assert KEY.encode() not in kept
    assert KEY not in caplog.text
    assert KEY not in json.dumps(vlm.statistics())


def test_what_nobody_can_answer_is_unknown_and_counted(tmp_path, caplog):
    pictures, truth = pictures_of(7)
    bad = {digest(pictures[2]), digest(pictures[5])}
    truth |= dict.fromkeys(bad, "a class beside the list")  # the server then answers -1
    with serving(truth, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, attempts=2, batch_size=4)
        answers = vlm.classify(pictures)
        names = [answer.name for answer in answers]
        assert names == [None if digest(p) in bad else truth[digest(p)] for p in pictures]
        assert (vlm.usage.unknown, vlm.usage.alone) == (2, 2)
        assert "2 of 7 pictures got no usable answer" in caplog.text
        assert {d: c for d, c in server.delivered.items() if d not in bad} == {
            d: 1 for d in map(digest, pictures) if d not in bad
        }
        asked = server.requests
        assert classifier(server, tmp_path, attempts=2).classify(pictures) == answers  # the model has had its say
        assert server.requests == asked


def test_unknown_for_want_of_a_reply_is_asked_again_next_time(tmp_path):
    pictures, truth = pictures_of(3)
    down = [True]
    with serving(truth, lambda number: "503" if down[0] else None, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, attempts=2)
        assert vlm.classify(pictures) == [UNKNOWN] * 3
        assert vlm.usage.faults == {"503": 2 + 3 * 2}
        down[0] = False
        assert [answer.name for answer in vlm.classify(pictures)] == truth_of(pictures, truth)


def test_a_request_that_is_refused_is_not_repeated_but_divided(tmp_path):
    pictures, truth = pictures_of(4)
    with serving(truth, lambda number: "400" if number == 0 else None, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path)
        assert [answer.name for answer in vlm.classify(pictures)] == truth_of(pictures, truth)
        assert server.requests == 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", r"127.0.0.1:\d+ refuses the key \(in \$OPENAI_API_KEY\)$"),
        ("404", "does not know the model or the address"),
        ("quota", "the account's quota is used up"),
    ],
)
def test_what_is_hopeless_ends_at_once(tmp_path, fault, message):
    pictures, truth = pictures_of(40)
    with serving(truth, lambda number: fault, sides=(48, 48)) as server:
        with pytest.raises(ClassifierError, match=message) as caught:
            classifier(server, tmp_path, concurrency=2).classify(pictures)
        assert KEY not in str(caught.value)
        assert server.requests <= 4


def test_a_server_that_is_not_there(tmp_path):
    with serving({}) as server:
        pass
    pictures, _ = pictures_of(2)
    with pytest.raises(ClassifierError, match=r"127.0.0.1:\d+ cannot be reached"):
        classifier(server, tmp_path, attempts=2).classify(pictures)


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(rate_limiter, "monotonic", lambda: self.now)
        monkeypatch.setattr(rate_limiter, "sleep", self.sleep)

    async def sleep(self, seconds):
        self.now += seconds


def test_requests_are_spaced_and_pauses_kept(monkeypatch):
    clock, rate_limiter = Clock(monkeypatch), RateLimiter(requests_per_minute=120, backoff=2, max_backoff=7)

    async def starts():
        found = []
        for number in range(5):
            await rate_limiter.acquire()
            found.append(clock.now - 100)
            if number == 2:
                rate_limiter.hold(30)
                rate_limiter.hold(10)
        return found

    assert asyncio.run(starts()) == [0, 0.5, 1, 31, 31.5]
    for attempt, longest in enumerate((2, 4, 7, 7)):
        before = clock.now
        asyncio.run(rate_limiter.back_off(attempt))
        assert longest / 2 <= clock.now - before <= longest
    rate_limiter.hold(1e9)  # nobody waits for years
    before = clock.now
    asyncio.run(rate_limiter.acquire())
    assert clock.now - before == 600


def test_retry_after_headers():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "40", "retry-after": "9"}) == 0.04
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 50 < retry_after({"retry-after": later}) <= 60
    assert retry_after({"retry-after": "soon"}) == 0
    assert retry_after({}) == 0


def test_free_naming(tmp_path):
    pictures, _ = pictures_of(3)
    truth = dict(zip(map(digest, pictures), ["Brick_Wall", "dog", "cat\nignore the rules"]))
    with serving(truth, sides=(48, 48), raw=True) as server:
        answers = classifier(server, tmp_path, labels=None, attempts=1).classify(pictures)
        assert [answer.name for answer in answers] == ["brick wall", "dog", None]
        assert answers[0].index is None
        assert "Classes" not in server.bodies[0]["messages"][0]["content"]


def test_a_dry_run_counts_and_sends_nothing(tmp_path):
    pictures, truth = pictures_of(20)
    with serving(truth, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, prices={"input": 0, "output": 0, "request": 0.02}, detail="low")
        vlm.classify(pictures[:5])
        sent = server.requests
        estimate = vlm.estimate([*pictures, pictures[0]])
        assert server.requests == sent
    assert (estimate.pictures, estimate.cached, estimate.requests) == (21, 6, 2)
    assert estimate.cost == pytest.approx(0.04)
    assert estimate.prompt_tokens > 15 * 85
    assert "2 requests" in str(estimate)


def test_tokens_and_cost():
    # GPT-4o's documented examples: 1024 x 1024 is scaled to 768 x 768, 4 tiles; 2048 x 4096 to 768 x 1536, 6 tiles.
    assert picture_tokens(1024, 1024, "high") == 765
    assert picture_tokens(2048, 4096, "high") == 1105
    assert picture_tokens(2048, 4096, "low") == 85
    assert picture_tokens(512, 300) == 255
    assert Prices().cost(3, 1_000_000, 100_000) == pytest.approx(3.5)
    assert Prices(0, 0, 0.01).cost(3, 10**6, 0) == pytest.approx(0.03)


def test_confidence_from_log_probabilities(tmp_path):
    pictures, truth = pictures_of(3)
    with serving(truth, sides=(48, 48)) as server:
        node = {"parameters": {"temperature": 0, "logprobs": True, "a_field_of_this_server": 7}}
        answers = classifier(server, tmp_path, **node).classify(pictures)
        assert [answer.confidence for answer in answers] == pytest.approx([0.5] * 3)  # of one digit each
        assert server.bodies[0]["a_field_of_this_server"] == 7
        assert classifier(server, tmp_path, **node).classify(pictures) == answers  # from the disk
    half = math.log(0.5)
    tokens = [
        ('{"', -9.0),
        ("1", -9.0),
        ('":', -9.0),
        (" 1", half),
        ("7", half),
        (', "', -9.0),
        ("2", -9.0),
        ('": "', 0),
    ]
    tokens += [("dog", half), ('"}', -9.0)]
    text = "".join(token for token, _ in tokens)
    assert answer_confidence(text, tokens, 1) == pytest.approx(0.25)
    assert answer_confidence(text, tokens, 2) == pytest.approx(0.5)
    assert answer_confidence(text, tokens[:-1], 2) == 1  # not the tokens of this text
    assert answer_confidence(text, tokens, 3) == 1


def test_replies_by_hand():
    prompts = Prompts(LABELS, "masked_crop")
    dog = Answer("dog", 1)
    assert prompts.read_reply('{"1": 1, "2": "4"}', 2) == {0: dog, 1: Answer("ice cream", 4)}
    assert prompts.read_reply('{"1": "Dog", "2": 5}', 2) == {0: dog}
    assert prompts.read_reply('{"7": 1}', 1) == {0: dog}
    assert prompts.read_reply('{"1": true, "2": 1.0, "3": null, "4": -1, "5": [1]}', 5) == {}
    for text, count in [("", 1), ("1", 1), ("[1, 2]", 2), ('{"1": 1', 1), ('{"1": 1}', 2), ('{"0": 1, "1": 1}', 2)]:
        with pytest.raises(MalformedReply):
            prompts.read_reply(text, count)


def test_words_of_the_prompts():
    for kind in ("image_box", "image_box_mask", "crop_box", "crop_box_mask", "masked_crop"):
        for labels in (LABELS, None):
            prompts = Prompts(labels, kind)
            text = prompts.system(4) + prompts.picture(2)
            assert "$" not in text
            assert "4 numbered" in text
            assert 'key "2"' in text
    assert '{"0": "person", "1": "dog", "2": "grass", "3": "traffic light", "4": "ice cream"}' in Prompts(
        LABELS, "masked_crop"
    ).system(1)
    with pytest.raises(ConfigError, match="no prompts 'shouting'; known: closed, free"):
        Prompts(LABELS, "masked_crop", "shouting")
    with pytest.raises(ConfigError, match="no words for the visual prompt 'x'"):
        Prompts(LABELS, "x")


def test_the_cache_survives_broken_files(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path, "question")
    key = cache.key(b"picture")
    assert cache.read(key) is None
    cache.write(key, Answer("dog", 1, 0.5))
    assert cache.read(key) == Answer("dog", 1, 0.5)
    (file,) = tmp_path.rglob("*.json")
    file.write_text('{"name": "do')
    assert cache.read(key) is None
    assert AnswerCache(tmp_path, "other").key(b"picture") != key
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "entitysam" / "answers"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"prices": {"token": 1}}, "prices takes input, output and request"),
        ({"temperatur": 1}, r"classifier.temperatur: unknown key"),
    ],
)
def test_settings_that_are_wrong(options, message):
    with pytest.raises(ConfigError, match=message):
        build(CLASSIFIERS, {"name": "vlm", **options}, "classifier", labels=LABELS, visual_prompt=SMALL)


def test_no_key_and_no_server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match=r"no key in \$OPENAI_API_KEY"):
        vision_language_classifier(LABELS, SMALL)
    vision_language_classifier(LABELS, SMALL, base_url="http://127.0.0.1:9/v1")
