"""What a message lists where a run is resumed with other options."""

from mnas.study.run import differences

SPACE = {"name": "mnasnet", "choices": {"kernel": [3, 5]}}


def test_each_field_that_differs_is_listed():
    before, now = {"epochs": 5, "space": SPACE}, {"epochs": 6, "space": {**SPACE, "choices": {"kernel": [3]}}}
    assert differences(before, before) == ""
    assert differences(before, now) == "epochs: 5 before, 6 now; space.choices.kernel: [3, 5] before, [3] now"


def test_of_two_spaces_only_the_names_are_listed():
    before, now = {"space": SPACE, "seed": 0}, {"space": {"name": "mobilenetv4", "choices": {}}, "seed": 1}
    assert differences(before, now) == 'space.name: "mnasnet" before, "mobilenetv4" now; seed: 0 before, 1 now'
