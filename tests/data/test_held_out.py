"""The images that a model may be scored on, for every relation of a model to a data set."""

from dataclasses import replace

import pytest

from mnas.data.held_out import Offered, select
from mnas.training_data import TrainingData

RECORD = TrainingData(name="pets", content="ab" * 32, images=100, seed=7, max_images_per_class=0, held_out=True)
BY_STAT = "stat:" + "cd" * 32


def offered(content: str = RECORD.content, name: str = "pets", **counts: int) -> Offered:
    return Offered(name=name, digest=lambda: content, by_stat=BY_STAT, counts=counts or {"train": 100})


def test_the_data_of_the_training():
    chosen = select("auto", None, offered(), (RECORD,), ours=True)
    assert (chosen.part, chosen.parts, chosen.seed, chosen.record) == ("val", ("val",), 7, RECORD)
    assert (chosen.relation, chosen.notes) == ("same", ())
    assert select("auto", 7, offered(), (RECORD,), ours=True) == chosen
    chosen = select("auto", None, offered(train=80, test=20), (RECORD,), ours=True)
    assert (chosen.part, chosen.seed, chosen.notes) == ("test", None, ())
    chosen = select("val", None, offered(train=80, test=20), (RECORD,), ours=True)
    assert (chosen.part, chosen.seed) == ("val", 7)
    chosen = select("auto", 1, offered(train=80, val=20), (replace(RECORD, held_out=False),), ours=True)
    assert (chosen.part, chosen.seed, chosen.notes) == ("val", None, ())
    for part in ("train", "all"):
        [note] = select(part, None, offered(train=80, val=20), (RECORD,), ours=True).notes
        assert note == "these include images that the model was trained on"


def test_by_name_size_and_time_where_that_is_all_that_is_recorded():
    by_stat = replace(RECORD, content=BY_STAT)
    assert select("auto", None, offered("00" * 32), (by_stat,), ours=True).relation == "same"
    with pytest.raises(ValueError, match="has been changed, or copied since"):
        select("auto", None, offered(), (replace(by_stat, content="stat:" + "0" * 64),), ours=True)


def test_other_counts_need_no_digest():
    def digest() -> str:
        raise AssertionError("of all ImageNet, to learn what the number of images says")

    many = Offered(name="imagenet", digest=digest, by_stat=BY_STAT, counts={"train": 1_231_167, "val": 50_000})
    assert select("auto", None, many, (RECORD,), ours=True).relation == "other"
    few = replace(RECORD, max_images_per_class=10, images=20)  # the record does not give the number
    assert select("auto", None, offered(), (few,), ours=True).relation == "same"


def test_earlier_trainings_count():
    tuned = replace(RECORD, name="birds", content="11" * 32, seed=3)
    assert select("auto", None, offered(), (tuned, RECORD), ours=True).seed == 7
    assert select("auto", None, offered("11" * 32, "birds"), (tuned, RECORD), ours=True).seed == 3


@pytest.mark.parametrize("wanted", ["auto", "val", "train"])
@pytest.mark.parametrize("seed", [None, 0, 7])
def test_other_data_without_parts_is_refused(wanted, seed):
    with pytest.raises(ValueError, match=r"must be the model's training data \('pets'\).*--part all"):
        select(wanted, seed, offered("00" * 32, "birds"), (RECORD,), ours=True)
    with pytest.raises(ValueError, match=r"\(100 images then, 120 now\).*--part all"):
        select(wanted, seed, offered("00" * 32, train=120), (RECORD,), ours=True)
    for name, train in (("birds", 100), ("pets", 120)):  # of a command without --part
        with pytest.raises(ValueError, match=r"name a folder with a validation part of its own\.$") as error:
            select("val", seed, offered("00" * 32, name, train=train), (RECORD,), ours=True, offers_all=False)
        assert "--part" not in str(error.value)
    every = select("all", seed, offered("00" * 32, "birds"), (RECORD,), ours=True)
    assert (every.parts, every.seed) == (("train",), None)
    assert "'birds' is not the data that the model was trained on ('pets')" in every.notes[0]


def test_other_data_with_parts_is_scored_and_said():
    for counts, part in (({"train": 5, "val": 3}, "val"), ({"train": 5, "test": 3}, "test"), ({"test": 3}, "test")):
        chosen = select("auto", None, offered("00" * 32, "birds", **counts), (RECORD,), ours=True)
        assert (chosen.part, chosen.seed, chosen.relation) == (part, None, "other")
        assert "is not the data" in chosen.notes[0]


def test_files_of_ours_without_a_record():
    chosen = select("auto", None, offered(), (), ours=True)
    assert (chosen.part, chosen.seed, chosen.relation) == ("val", 0, "unknown")
    assert "val is drawn with seed 0" in chosen.notes[0]
    assert select("auto", 3, offered(), (), ours=True).seed == 3
    assert select("auto", 3, offered(), (), ours=True).notes == ()
    assert select("auto", None, offered(train=80, test=20), (), ours=True).notes == ()
    assert "may include training images" in select("all", None, offered(), (), ours=True).notes[0]


def test_files_of_others():
    chosen = select("auto", None, offered(), (), ours=False)
    assert (chosen.part, chosen.seed) == ("all", None)
    assert chosen.notes == ("'pets' has no test or validation part, so every image is scored",)
    chosen = select("auto", 4, offered(), (), ours=False)
    assert (chosen.part, chosen.seed) == ("val", 4)
    chosen = select("auto", None, offered(train=80, val=10, test=10), (), ours=False)
    assert (chosen.part, chosen.notes) == ("test", ())
    assert select("all", None, offered(train=80, val=10, test=10), (), ours=False).parts == ("train", "val", "test")


def test_parts_that_are_not_there():
    with pytest.raises(ValueError, match="must have a part 'test', but 'pets' has only train and val"):
        select("test", None, offered(), (RECORD,), ours=True)
    for part in ("train", "val"):
        with pytest.raises(ValueError, match=f"must have a part '{part}', but 'pets' has only test"):
            select(part, None, offered("00" * 32, test=9), (), ours=False)
    assert select("all", None, offered("00" * 32, test=9), (), ours=False).parts == ("test",)
