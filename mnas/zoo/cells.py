"""Published networks of cells at their mobile size, each with its source.

Published cells are lists of operations and of their input states, copied here unchanged. State 0 is the output of the
previous cell and 1 that of the cell before it; DARTS's code numbers these two the other way round.
"""

from mnas.cell_arch import Cell, CellArch, CellSkeleton, Pair

_DARTS_OPS = {
    "sep_conv_3x3": "sep3",
    "dil_conv_3x3": "dilsep3",
    "max_pool_3x3": "max3",
    "avg_pool_3x3": "avg3",
    "skip_connect": "identity",
}


def _cell(ops: str, states: str, concat: tuple[int, ...]) -> Cell:
    """Return the cell of published lists, which have two operations and two states for each pair."""
    branches = list(zip(map(int, states.split()), ops.split(), strict=True))
    pairs = tuple(Pair(*first, *second) for first, second in zip(branches[::2], branches[1::2], strict=True))
    return Cell(pairs=pairs, concat=concat)


def _darts_cell(genotype: str) -> Cell:
    """Return the cell of a genotype such as `sep_conv_3x3 0, sep_conv_3x3 1, ...`; its output concatenates all sums."""
    branches = [branch.split() for branch in genotype.split(", ")]
    ops = " ".join(_DARTS_OPS[op] for op, _ in branches)
    states = " ".join({"0": "1", "1": "0"}.get(state, state) for _, state in branches)
    return _cell(ops, states, tuple(range(2, len(branches) // 2 + 2)))


def _darts_skeleton(filters: int) -> CellSkeleton:
    return CellSkeleton(
        filters=filters,
        stem_filters=(filters // 2, filters, filters),
        stem_strides=(2, 2, 2),
        stem_cells=0,
        dropout=0.0,
        bn_epsilon=1e-5,
        bn_momentum=0.1,
    )


_PNASNET_5 = _cell(
    "sep5 max3 sep7 max3 sep5 sep3 sep3 max3 sep3 identity", "1 1 0 0 0 0 4 0 1 0", concat=(2, 3, 4, 5, 6)
)

_DARTS_REDUCTION_V1 = (
    "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 0, "
    "max_pool_3x3 0, skip_connect 2, skip_connect 2, avg_pool_3x3 0"
)
_DARTS_REDUCTION_V2 = (
    "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 1, "
    "max_pool_3x3 0, skip_connect 2, skip_connect 2, max_pool_3x3 1"
)

CELL_NETWORKS: dict[str, tuple[CellArch, str]] = {
    "nasnet-a": (
        CellArch(
            normal=_cell(
                "sep5 sep3 sep5 sep3 avg3 identity avg3 avg3 sep3 identity",
                "0 1 1 1 0 1 1 1 0 0",
                concat=(1, 2, 3, 4, 5, 6),  # includes state 1, although it is used
            ),
            reduction=_cell(
                "sep5 sep7 max3 sep7 avg3 sep5 identity avg3 sep3 max3",
                "0 1 0 1 0 1 3 2 2 0",
                concat=(3, 4, 5, 6),  # includes state 3, although it is used
            ),
        ),
        "Zoph et al. (CVPR 2018, arXiv:1707.07012), NASNet-A (4 @ 1056); "
        "tensorflow/models, research/slim/nets/nasnet/nasnet.py, mobile_imagenet_config",
    ),
    "amoebanet-a": (
        CellArch(
            normal=_cell(
                "avg3 max3 sep3 identity identity avg3 sep3 sep5 avg3 sep3", "0 0 1 1 0 1 0 2 5 0", concat=(1, 3, 4, 6)
            ),
            reduction=_cell(
                "sep3 avg3 max3 sep7 max3 max3 sep3 conv1x7 avg3 sep7", "1 0 0 2 1 0 4 0 1 0", concat=(2, 3, 4, 5, 6)
            ),
            skeleton=CellSkeleton(filters=50),
        ),
        "Real et al. (AAAI 2019, arXiv:1802.01548), AmoebaNet-A (N = 4, F = 50); "
        "tensorflow/tpu, models/official/amoeba_net/model_specs.py, amoeba_net_a",
    ),
    "pnasnet-5": (
        CellArch(
            normal=_PNASNET_5,
            reduction=_PNASNET_5,
            skeleton=CellSkeleton(filters=54, cells=(3, 2, 2)),  # N = 3 cells per stage, including the reduction cell
        ),
        "Liu et al. (ECCV 2018, arXiv:1712.00559), PNASNet-5 (N = 3, F = 54); "
        "tensorflow/models, research/slim/nets/nasnet/pnasnet.py, mobile_imagenet_config",
    ),
    "darts-v2": (
        CellArch(
            normal=_darts_cell(
                "sep_conv_3x3 0, sep_conv_3x3 1, sep_conv_3x3 0, sep_conv_3x3 1, "
                "sep_conv_3x3 1, skip_connect 0, skip_connect 0, dil_conv_3x3 2"
            ),
            reduction=_darts_cell(_DARTS_REDUCTION_V2),
            skeleton=_darts_skeleton(48),
        ),
        "Liu et al. (ICLR 2019, arXiv:1806.09055), second order; quark0/darts, cnn/genotypes.py, DARTS_V2, "
        "14 cells, C = 48",
    ),
    "darts-v1": (
        CellArch(
            normal=_darts_cell(
                "sep_conv_3x3 1, sep_conv_3x3 0, skip_connect 0, sep_conv_3x3 1, "
                "skip_connect 0, sep_conv_3x3 1, sep_conv_3x3 0, skip_connect 2"
            ),
            reduction=_darts_cell(_DARTS_REDUCTION_V1),
            skeleton=_darts_skeleton(50),
        ),
        "Liu et al. (arXiv:1806.09055v1); quark0/darts, commit 8876e79, cnn/genotypes.py, DARTS, 14 cells, C = 50",
    ),
}
"""Name -> (architecture, publication)."""
