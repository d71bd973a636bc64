"""Prompts of a vision-language model, and the parsing of its replies."""

import json

import pytest

from entitysam.classification.classifier import Answer
from entitysam.classification.labels import parse_labels
from entitysam.classification.vlm.prompts import Prompts
from entitysam.classification.vlm.reply import MalformedReply, ReplyParser
from entitysam.registry import ConfigError

LABELS = parse_labels("person, dog, grass, traffic light, ice cream")
DOG, ICE = Answer("dog", 1), Answer("ice cream", 4)


@pytest.mark.parametrize(
    ("text", "count", "answers"),
    [
        ('{"1": 1, "2": "4"}', 2, {0: DOG, 1: ICE}),
        ('{"1": "Dog", "2": 5}', 2, {0: DOG}),
        ('{"7": 1}', 1, {0: DOG}),
        ('{"1": true, "2": 1.0, "3": null, "4": -1, "5": [1]}', 5, {}),
        ('<think>{"1": 0}? No.</think>{"1": 1}', 1, {0: DOG}),
        ('{"1": 0} ... </think> {"1": 1}', 1, {0: DOG}),  # a server that cuts the opening tag off
        ('{"1": 1}\nI used {"shape": "fur"}.', 1, {0: DOG}),
        ('{"1": 1}\n{not json}', 1, {0: DOG}),
        ('First {"1": 0, "2": 0}, then {"1": 1, "2": 4}', 2, {0: DOG, 1: ICE}),  # the last one counts
        ('{"1": 1, "2": 4} or {"1": 1, "2": "both"}', 2, {0: DOG, 1: ICE}),  # the last one with valid answers
        ('{"1": 1} is index 1: {"index": 1, "sure": "yes"}', 1, {0: DOG}),
        ('```json\n{"1": 1}\n```', 1, {0: DOG}),
        ('{"answers": {"1": 1, "2": 4}}', 2, {0: DOG, 1: ICE}),
        ("{}" * 100_000 + '{"1": 1}', 1, {0: DOG}),
    ],
)
def test_the_last_json_object_that_fits_is_read(text, count, answers):
    assert ReplyParser(LABELS).parse(text, count).answers == answers


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("1", 1),
        ("[1, 2]", 2),
        ('{"1": 1', 1),
        ('{"1": 1}', 2),
        ('{"0": 1, "1": 1}', 2),
        ('<think>{"1": 1}', 1),  # reasoning that never ends
        ('<think>{"1": 1}</think>', 1),
        ("[" * 100_000, 1),
        ('{"1": ' + "[" * 100_000 + "}", 1),
        ('{"1": ' * 100_000, 1),
        ("{" * 300_000, 1),
        ('{"1": ' + "9" * 10_000 + "}", 1),
    ],
)
def test_malformed_replies(text, count):
    with pytest.raises(MalformedReply):
        ReplyParser(LABELS).parse(text, count)


def test_text_of_the_prompts():
    for kind in ("image_box", "image_box_mask", "crop_box", "crop_box_mask", "masked_crop"):
        for labels in (LABELS, None):
            prompts = Prompts(labels, kind)
            text = prompts.system(4) + prompts.image(2)
            assert "$" not in text
            assert "4 numbered" in text
            assert 'key "2"' in text
    assert '{"0": "person", "1": "dog", "2": "grass", "3": "traffic light", "4": "ice cream"}' in Prompts(
        LABELS, "masked_crop"
    ).system(1)
    with pytest.raises(ConfigError, match="no prompts 'shouting'; known: closed, free"):
        Prompts(LABELS, "masked_crop", "shouting")
    with pytest.raises(ConfigError, match="'regions' has no text for the visual prompt 'x'"):
        Prompts(LABELS, "x")


def test_former_keys_of_a_wording_still_work(tmp_path, monkeypatch):
    wording = {"system": "$pictures of $list", "picture": "no. $number: $region", "regions": {"masked_crop": "in red"}}
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "own.yaml").write_text(json.dumps(wording))
    monkeypatch.setattr("entitysam.config.shipped_folder", lambda name: tmp_path)
    prompts = Prompts(LABELS[:1], "masked_crop", "own")
    assert prompts.system(3) == '3 of {"0": "person"}'
    assert prompts.image(2) == "no. 2: in red"
