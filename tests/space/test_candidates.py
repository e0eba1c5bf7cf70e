"""The space of a search: networks of a space and parents, at several input sizes."""

import itertools
import random

import pytest
from toy import toy_space

from mnas.arch import Arch
from mnas.candidate import Candidate
from mnas.nn.inherit.cuts import require_cut
from mnas.space.candidates import CandidateSpace, Parent, candidate_space, input_sizes_of
from mnas.zoo.architectures import named_arch

LITE0 = Parent(name="efficientnet-lite0", arch=named_arch("efficientnet-lite0"), digest="0123")
SMALL = Parent(name="small.pth", arch=named_arch("mnasnet-small"), digest="4567")


def test_one_size_and_no_parent_is_the_space_itself():
    space = CandidateSpace(space=toy_space(), input_sizes=(8,))
    assert space.decisions == toy_space().decisions
    assert space.distributions == toy_space().distributions
    assert space.to_config() == {"space": toy_space().to_dict(), "input_size": 8}
    indices = [1] * len(space.decisions)
    indices = [index if len(d.choices) > 1 else 0 for index, d in zip(indices, space.decisions, strict=True)]
    assert space.decode(indices) == Candidate(arch=toy_space().decode(indices), input_size=8)


@pytest.mark.parametrize("scratch", [False, True])
def test_every_index_vector_is_a_candidate_and_back(scratch):
    space = CandidateSpace(space=toy_space() if scratch else None, input_sizes=(32, 64, 96), parents=(LITE0, SMALL))
    names = [decision.name for decision in space.decisions]
    assert names[:2] == ["parent", "input_size"]
    assert space.size == (3 * 3 * 64 if scratch else 2 * 3)
    seen = set()
    for indices in itertools.product(*(range(len(d.choices)) for d in space.decisions)):
        candidate = space.decode(indices)
        again = space.encode(candidate)
        assert space.decode(again) == candidate
        assert again <= tuple(indices)
        assert space.indices(space.params(indices)) == indices
        seen.add(candidate)
    assert len(seen) == space.distinct == (2 + (toy_space().distinct if scratch else 0)) * 3
    assert {c for c in seen if c.parent} == set(space.of_parents())


def test_a_configuration_restores_the_space():
    for space in (
        CandidateSpace(space=toy_space(), input_sizes=(32,)),
        CandidateSpace(space=toy_space(), input_sizes=(32, 64)),
        CandidateSpace(space=None, input_sizes=(32,), parents=(LITE0,)),
        CandidateSpace(space=toy_space(), input_sizes=(32, 64), parents=(LITE0, SMALL)),
    ):
        assert candidate_space(space.to_config()) == space


def test_what_is_outside_the_space_is_refused():
    parents = CandidateSpace(space=None, input_sizes=(32, 64), parents=(LITE0,))
    with pytest.raises(ValueError, match="input size must be one of 32, 64, but got 48"):
        parents.encode(Candidate(arch=LITE0.arch, input_size=48, parent=LITE0.name))
    with pytest.raises(ValueError, match="parent must be one of efficientnet-lite0, but got 'other'"):
        parents.encode(Candidate(arch=LITE0.arch, input_size=32, parent="other"))
    with pytest.raises(ValueError, match="must be one of efficientnet-lite0 with its weights"):
        parents.encode(Candidate(arch=LITE0.arch, input_size=32))
    with pytest.raises(ValueError, match="must have a space or parents"):
        CandidateSpace(space=None, input_sizes=(32,))
    with pytest.raises(ValueError, match=r"different and ascending, but got \(64, 32\)"):
        CandidateSpace(space=toy_space(), input_sizes=(64, 32))
    with pytest.raises(ValueError, match="--parent must name each parent once"):
        CandidateSpace(space=None, input_sizes=(32,), parents=(LITE0, LITE0))
    with pytest.raises(ValueError, match="--parent must name a network other than 'none', but got 'none'"):
        Parent(name="none", arch=LITE0.arch, digest="")
    with pytest.raises(ValueError, match="input_size must be pixels, but got 'auto'"):
        input_sizes_of({"input_size": "auto"})


def test_cuts_of_two_parents_are_candidates_and_back():
    space = CandidateSpace(space=toy_space(), input_sizes=(64, 96), parents=(LITE0, SMALL), cuts=True)
    names = [decision.name for decision in space.decisions]
    assert names[:4] == ["parent", "input_size", "cut.stem.width", "cut.block1.layers"]
    assert len(names) == 2 + 2 + 5 * 7 + len(toy_space().decisions)
    assert candidate_space(space.to_config()) == space
    generator = random.Random(0)
    for _ in range(300):
        indices = tuple(generator.randrange(len(d.choices)) for d in space.decisions)
        candidate = space.decode(indices)
        again = space.encode(candidate)
        assert space.decode(again) == candidate
        assert again <= indices
        if candidate.parent:
            require_cut({"efficientnet-lite0": LITE0, "small.pth": SMALL}[candidate.parent].arch, candidate.arch)
    for candidate in space.of_parents():
        assert set(space.encode(candidate)[2:]) == {0}


def test_all_cuts_of_a_parent_are_counted():
    arch = Arch.from_block_strings("r2_k3_s22_e4_i8_o16")
    parent = Parent(name="two", arch=arch, digest="89")
    space = CandidateSpace(space=None, input_sizes=(32,), parents=(parent,), cuts=True)
    choices = [range(len(d.choices)) for d in space.decisions]
    networks = {space.decode(indices).arch for indices in itertools.product(*choices)}
    # head 1280, 960, 640; layers 2 or 1, kernel 3 or 5, expansion 4, 3, 2, 1, with SE or without, width 16, 12, 8
    assert len(networks) == space.distinct == 3 * 2 * 2 * 4 * 2 * 3
