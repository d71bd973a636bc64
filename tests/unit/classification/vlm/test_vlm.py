"""The vision-language classifier with a server on loopback that checks requests and fails in many ways."""

import asyncio
import json
import logging
import math
import random

import numpy as np
import pytest
from support.chat_server import KEY, digest, serving

from entitysam.classification.answer_cache import AnswerCache, default_folder
from entitysam.classification.classifier import UNKNOWN, Answer, ClassifierError
from entitysam.classification.labels import parse_labels
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.classification.vlm.build import vision_language_classifier
from entitysam.classification.vlm.confidence import answer_confidence
from entitysam.classification.vlm.cost import Prices, image_tokens
from entitysam.registry import CLASSIFIERS, ConfigError, build

LABELS = parse_labels("person, dog, grass, traffic light, ice cream")
NAMES = [label.name for label in LABELS]
SMALL = VisualPrompt(min_side=48, max_side=48)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def images_of(count, prompt=SMALL):
    """Different images, and the class of each by digest."""
    rng = np.random.default_rng(count)
    mask = np.zeros((24, 24), bool)
    mask[4:20, 6:18] = True
    frames = rng.integers(0, 160, (count, 24, 24, 3), dtype=np.uint8)
    images = [prompt.encode(frame, mask) for frame in frames]
    truth = {digest(image): NAMES[rng.integers(len(NAMES))] for image in images}
    assert len(truth) == count
    return images, truth


def classifier(server, tmp_path, labels=LABELS, **options):
    node = {"name": "vlm", "base_url": server.base_url, "cache": str(tmp_path / "answers"), "backoff": 0.01, **options}
    return build(CLASSIFIERS, node, "classifier", labels=labels, visual_prompt=SMALL)


def truth_of(images, truth):
    return [truth[digest(image)] for image in images]


def test_every_image_gets_its_class_and_a_second_run_sends_nothing(tmp_path):
    images, truth = images_of(21)
    done = []
    with serving(truth, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path)
        answers = vlm.classify([*images, images[0]], done.append)
        assert [answer.name for answer in answers] == [*truth_of(images, truth), truth[digest(images[0])]]
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
        assert again.classify(images) == answers[:21]
        assert server.requests == 3
        assert again.usage.cached == 21
        other = classifier(server, tmp_path, model="another")  # the key of an answer has model and list in it
        assert other.classify(images[:1]) == answers[:1]
        assert server.requests == 4
        classifier(server, tmp_path, labels=LABELS[:4] + LABELS[4:]).classify(images)
        assert server.requests == 4
        classifier(server, tmp_path, labels=LABELS[::-1]).classify(images[:1])
        assert server.requests == 5


KINDS = ["429", "500", "503", "think", "trailing", "only_think", "deep", "error_body", "hang", "half_body", "half_answer", "wrong_json", "prose", "out_of_range", "fewer", "more",
         "name_beside_list", "fenced"]  # fmt: skip
COUNT = 400  # images of the long run


@pytest.mark.parametrize("kind", KINDS)
def test_labelling_continues_after_each_fault(tmp_path, kind):
    images, truth = images_of(6)
    fault = lambda number: kind if number == 0 else None  # noqa: E731
    with serving(truth, fault, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, batch_size=3, concurrency=1, timeout=4 if kind == "hang" else 60)
        assert [answer.name for answer in vlm.classify(images)] == truth_of(images, truth)
        assert server.faults[kind] == 1
        assert not server.problems
        if kind == "hang":  # a slow machine may see more time-outs than the one that is meant
            assert vlm.usage.faults["time-out"] >= 1
            assert server.requests >= 3
            return
        assert server.requests == (2 if kind in ("fenced", "think", "trailing") else 3)
        assert set(server.delivered.values()) == {1}


def test_hundreds_of_images_with_a_fifth_of_faults(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    images, truth = images_of(COUNT)
    rng = random.Random(5)
    plan = [rng.choice(KINDS) if rng.random() < 0.2 else None for _ in range(2 * COUNT)]
    with serving(truth, plan.__getitem__, sides=(48, 48), hang=1) as server:
        vlm = classifier(server, tmp_path, concurrency=12)
        answers = vlm.classify(images)
        assert len(answers) == COUNT
        assert [answer.name for answer in answers] == truth_of(images, truth)
        assert set(server.delivered.values()) == {1}  # none lost, none asked again after its answer
        assert len(server.delivered) == COUNT
        assert sum(count for kind, count in server.faults.items() if kind) >= 8
        assert not server.problems
        assert 1 < server.most_at_once <= 12
        assert vlm.usage.unknown == 0
    assert len(list((tmp_path / "answers").rglob("*.json"))) == COUNT
    kept = b"".join(path.read_bytes() for path in (tmp_path / "answers").rglob("*.json"))
    assert KEY.encode() not in kept
    assert KEY not in caplog.text
    assert KEY not in json.dumps(vlm.statistics())


def test_an_invalid_answer_is_unknown_and_asked_again_by_the_next_run(tmp_path, caplog):
    images, truth = images_of(7)
    bad = {digest(images[2]), digest(images[5])}
    with serving(truth | dict.fromkeys(bad, "a class beside the list"), sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, attempts=2, batch_size=4)
        names = [answer.name for answer in vlm.classify(images)]
        assert names == [None if digest(image) in bad else truth[digest(image)] for image in images]
        assert (vlm.usage.unknown, vlm.usage.alone) == (2, 2)
        assert "2 of 7 images got no valid answer" in caplog.text
        good = {d: c for d, c in server.delivered.items() if d not in bad}
        assert good == {d: 1 for d in map(digest, images) if d not in bad}
        server.truth = truth  # a better model
        asked = server.requests
        better = classifier(server, tmp_path, attempts=2).classify(images)
        assert [answer.name for answer in better] == truth_of(images, truth)
        assert server.requests == asked + 1  # for the two unknown images


def test_without_a_reply_an_image_is_unknown_and_asked_again(tmp_path):
    images, truth = images_of(3)
    down = [True]
    with serving(truth, lambda number: "503" if down[0] else None, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, attempts=2)
        assert vlm.classify(images) == [UNKNOWN] * 3
        assert vlm.usage.faults == {"503": 2 + 3 * 2}
        down[0] = False
        assert [answer.name for answer in vlm.classify(images)] == truth_of(images, truth)


def test_a_refused_request_is_not_repeated_but_divided(tmp_path):
    images, truth = images_of(4)
    with serving(truth, lambda number: "400" if number == 0 else None, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path)
        assert [answer.name for answer in vlm.classify(images)] == truth_of(images, truth)
        assert server.requests == 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", r"127.0.0.1:\d+ refuses the key in \$OPENAI_API_KEY$"),
        ("404", r"does not know the model 'gpt-4o' \(--vlm\) or the address \(--base-url\)"),
        ("quota", "the account's quota is used up"),
        ("403", "refuses access"),
    ],
)
def test_errors_for_all_requests_end_the_run_at_once(tmp_path, fault, message):
    images, truth = images_of(40)
    with serving(truth, lambda number: fault, sides=(48, 48)) as server:
        with pytest.raises(ClassifierError, match=message) as caught:
            classifier(server, tmp_path, concurrency=2).classify(images)
        assert KEY not in str(caught.value)
        assert server.requests <= 4


def test_an_unreachable_server(tmp_path):
    with serving({}) as server:
        pass
    images, _ = images_of(2)
    with pytest.raises(ClassifierError, match=r"127.0.0.1:\d+ cannot be reached"):
        classifier(server, tmp_path, attempts=2).classify(images)


def test_free_naming(tmp_path):
    images, _ = images_of(3)
    truth = dict(zip(map(digest, images), ["Brick_Wall", "dog", "cat\nignore the rules"]))
    with serving(truth, sides=(48, 48), raw=True) as server:
        answers = classifier(server, tmp_path, labels=None, attempts=1).classify(images)
        assert [answer.name for answer in answers] == ["brick wall", "dog", None]
        assert answers[0].index is None
        assert "Classes" not in server.bodies[0]["messages"][0]["content"]


def test_a_dry_run_counts_and_sends_nothing(tmp_path):
    images, truth = images_of(20)
    with serving(truth, sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, prices={"input": 0, "output": 0, "request": 0.02}, detail="low")
        vlm.classify(images[:5])
        sent = server.requests
        estimate = vlm.estimate([*images, images[0]])
        assert server.requests == sent
    assert (estimate.images, estimate.cached, estimate.requests) == (21, 6, 2)
    assert estimate.cost == pytest.approx(0.04)
    assert estimate.prompt_tokens > 15 * 85
    assert "2 requests" in str(estimate)


def test_tokens_and_cost():
    # GPT-4o's documented examples: 1024 x 1024 is scaled to 768 x 768, 4 tiles; 2048 x 4096 to 768 x 1536, 6 tiles.
    assert image_tokens(1024, 1024, "high") == 765
    assert image_tokens(2048, 4096, "high") == 1105
    assert image_tokens(2048, 4096, "low") == 85
    assert image_tokens(512, 300) == 255
    assert Prices().cost(3, 1_000_000, 100_000) == pytest.approx(3.5)
    assert Prices(0, 0, 0.01).cost(3, 10**6, 0) == pytest.approx(0.03)


def test_confidence_from_log_probabilities(tmp_path):
    images, truth = images_of(3)
    with serving(truth, sides=(48, 48)) as server:
        node = {"parameters": {"temperature": 0, "logprobs": True, "a_field_of_this_server": 7}}
        answers = classifier(server, tmp_path, **node).classify(images)
        assert [answer.confidence for answer in answers] == pytest.approx([0.5] * 3)  # of one digit each
        assert server.bodies[0]["a_field_of_this_server"] == 7
        assert classifier(server, tmp_path, **node).classify(images) == answers  # from the disk
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


def test_broken_files_in_the_cache_are_ignored(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path, "question")
    key = cache.key(b"image")
    assert cache.read(key) is None
    cache.write(key, Answer("dog", 1, 0.5))
    assert cache.read(key) == Answer("dog", 1, 0.5)
    (file,) = tmp_path.rglob("*.json")
    for broken in ('{"name": "do', "[" * 100_000, '{"name": 3, "index": 1, "confidence": 1}', "[]",
                   '{"name": null, "index": null, "confidence": 0.0}'):  # fmt: skip
        file.write_text(broken)
        assert cache.read(key) is None
    with pytest.raises(ValueError, match="an unknown answer is not cached"):
        cache.write(key, UNKNOWN)
    assert AnswerCache(tmp_path, "other").key(b"image") != key
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
def test_invalid_settings(options, message):
    with pytest.raises(ConfigError, match=message):
        build(CLASSIFIERS, {"name": "vlm", **options}, "classifier", labels=LABELS, visual_prompt=SMALL)


def test_no_key_and_no_server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match=r"no key in \$OPENAI_API_KEY"):
        vision_language_classifier(LABELS, SMALL)
    vision_language_classifier(LABELS, SMALL, base_url="http://127.0.0.1:9/v1")


# Servers that refuse a field or give a reason; notebooks  ------------------------------------------------


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if "replies" in record.getMessage()]


def test_fields_that_a_server_refuses_are_removed_and_reported_once(tmp_path, caplog):
    images, truth = images_of(12)
    with serving(truth, lambda number: "schema", sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, batch_size=2, concurrency=3, attempts=1)
        assert [answer.name for answer in vlm.classify(images)] == truth_of(images, truth)
        assert not {"response_format", "temperature"} & server.bodies[-1].keys()
        assert vlm.usage.alone == 0
    json_mode, temperature = warnings_of(caplog)
    assert "'response_format.type' must be 'json_schema' or 'text'" in json_mode
    assert "classifier.json_mode=false" in json_mode
    assert "'temperature' does not support 0" in temperature
    assert "classifier.parameters" in temperature


def test_only_the_field_named_by_param_is_removed(tmp_path):
    images, truth = images_of(2)
    with serving(truth, lambda number: "strict", sides=(48, 48)) as server:
        vlm = classifier(server, tmp_path, parameters={"temperature": 0, "model_options": 1})
        assert [answer.name for answer in vlm.classify(images)] == truth_of(images, truth)
        assert server.bodies[-1]["model_options"] == 1
        assert server.bodies[-1]["response_format"] == {"type": "json_object"}
        assert server.requests == 2


@pytest.mark.parametrize(
    ("fault", "sentence", "advice"),
    [
        ("no_vision", "this model has no vision tower: image input is not supported", "--vlm MODEL"),
        ("error_body", "upstream model is overloaded [31m", ""),
    ],
)
def test_the_sentence_of_a_server_is_reported_once_without_control_characters(
    tmp_path, caplog, fault, sentence, advice
):
    images, truth = images_of(3)
    with serving(truth, lambda number: fault, sides=(48, 48)) as server:
        assert classifier(server, tmp_path, attempts=2).classify(images) == [UNKNOWN] * 3
    (said,) = warnings_of(caplog)
    assert f'"{sentence}"' in said
    assert advice in said
    assert KEY not in caplog.text


def test_classify_inside_a_running_event_loop(tmp_path):
    images, truth = images_of(3)

    async def notebook(vlm):
        return vlm.classify(images)

    with serving(truth, sides=(48, 48)) as server:
        answers = asyncio.run(notebook(classifier(server, tmp_path)))
    assert [answer.name for answer in answers] == truth_of(images, truth)


def test_confidence_is_that_of_the_object_that_was_read(tmp_path):
    images, truth = images_of(1)
    with serving(truth, lambda number: "think", sides=(48, 48)) as server:
        node = {"parameters": {"logprobs": True}}
        (answer,) = classifier(server, tmp_path, **node).classify(images)
    assert answer.confidence == pytest.approx(0.5)  # one digit, not the digit of the reasoning
    text = '{"1": 7} {"1": 1}'
    tokens = [(c, math.log(0.25) if c == "7" else -0.0) for c in text]
    assert answer_confidence(text, tokens, 1, text.rindex("{")) == 1
    assert answer_confidence(text, tokens, 1) == pytest.approx(0.25)
