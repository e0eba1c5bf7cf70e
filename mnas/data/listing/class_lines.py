"""The lines of the class table: images that a command uses, files that it leaves out, and the majority share."""

from collections.abc import Sequence

from mnas.data.listing.class_table import ClassTable

_MOST_CLASSES = 20
_ENDS = 5  # number of largest and of smallest classes to print if there are more than 20
_MOST_REASONS = 8
_NAME_WIDTH = 32
_EXAMPLE_WIDTH = 160


def class_table_lines(table: ClassTable, *scored: str) -> list[str]:
    """Return the lines: classes, files left out, notes, and the majority share."""
    lines = _rows(table) if table.images else [_unknown(table)]
    if table.listing.left_out:
        groups = [
            f"{group.count:,} {group.reason} ({plain(group.example, _EXAMPLE_WIDTH)})"
            for group in table.listing.left_out[:_MOST_REASONS]
        ]
        if rest := table.listing.left_out[_MOST_REASONS:]:
            groups.append(f"{sum(group.count for group in rest):,} for other reasons")
        lines.append(f"left out: {'; '.join(groups)}")
    lines += [note if note.startswith("warning: ") else f"note: {note}" for note in table.listing.notes]
    share, largest = table.majority_share(*scored), table.majority_class(*scored)
    if share is not None and largest is not None:
        which = "all" if scored == ("all",) else f"the {' and '.join(scored)}"
        lines.append(
            f"majority share: {share:.2%} of {which} images are {plain(largest)} (the accuracy of always predicting it)"
        )
    return lines


def _unknown(table: ClassTable) -> str:
    counts = ", ".join(f"{count:,} {part}" for part, count in table.counts.items())
    return f"{len(table.classes):,} classes, images {counts}; the images of each class are counted while they are read"


def _rows(table: ClassTable) -> list[str]:
    parts = list(table.images)
    omitted: list[int] = [0] * len(table.classes)
    labels = {name: label for label, name in enumerate(table.classes)}
    for group in table.listing.left_out:
        for name, count in group.by_class.items():
            if name in labels:
                omitted[labels[name]] += count
    sums = [sum(table.images[part][label] for part in parts) for label in range(len(table.classes))]
    chosen, hidden = list(range(len(table.classes))), 0
    if len(chosen) > _MOST_CLASSES:
        by_size = sorted(chosen, key=lambda label: (-sums[label], label))
        chosen, hidden = [*by_size[:_ENDS], *by_size[-_ENDS:]], len(chosen) - 2 * _ENDS
    cells = [["class", *parts, "left out"]]
    for label in chosen:
        counts = (table.images[part][label] for part in parts)
        cells.append([plain(table.classes[label]), *(f"{count:,}" for count in counts), f"{omitted[label]:,}"])
    if hidden:
        cells.insert(1 + _ENDS, [f"... {hidden:,} more", *("" for _ in parts), ""])
    total = sum(group.count for group in table.listing.left_out)
    if outside := total - sum(omitted):
        cells.append(["outside class folders", *("" for _ in parts), f"{outside:,}"])
    cells.append(
        [f"all {len(table.classes):,} classes", *(f"{sum(table.images[part]):,}" for part in parts), f"{total:,}"]
    )
    return aligned(cells)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with the first column aligned to the left, all others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def plain(name: str, width: int = _NAME_WIDTH) -> str:
    """Return a name from the data for the terminal: on one line, cut if it is longer than `width`."""
    text = repr(name[: width + 1])[1:-1]
    return text if len(text) <= width else f"{text[: width - 3]}..."
