"""12-bit data in 16-bit files that do not declare it: a warning for a folder of them, none for others."""

import numpy as np
from image_files import png, tiff

from mnas.data.decoding.dim import dim_line, dim_note, used_bits_of
from mnas.data.listing.folder import folder_source

VALUES = np.linspace(0, 1, 64).reshape(8, 8)


def of_bits(bits: int) -> np.ndarray:
    return np.rint(VALUES * ((1 << bits) - 1)).astype(np.uint16)


def test_a_folder_of_12_bits(tmp_path):
    paths = [tmp_path / f"{i:03}.png" for i in range(200)]
    names = [path.name for path in paths]
    for i, path in enumerate(paths):
        path.write_bytes(png(of_bits(10 if i % 2 else 12)))
    assert dim_note(tmp_path, names).startswith(
        "warning: 16-bit images use only their lowest 12 bits (000.png, 003.png)"
    )
    assert "lowest 10 bits" in dim_note(tmp_path, names[1::2])
    paths[3].write_bytes(png(of_bits(16)))  # so the others are really dark
    assert dim_note(tmp_path, names) == ""


def test_no_warning(tmp_path):
    files = {
        "eight.png": png(np.uint8(VALUES * 255)), "full.tif": tiff(of_bits(16)), "black.png": png(of_bits(16) * 0),
        "said.tif": tiff(of_bits(12), {281: (3, 4095)}), "said.png": png(of_bits(12), (b"sBIT", b"\x0c")),
        "text.png": b"text", "photo.jpg": png(of_bits(12)),
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert dim_note(tmp_path, [name]) == "", name
    assert dim_note(tmp_path, ["nothing.png"]) == ""
    assert dim_line({}) == ""
    assert used_bits_of(files["photo.jpg"]) == 12  # downloaded content has no name


def test_the_table_of_a_folder_says_it(tmp_path):
    for name, bits in (("a", 12), ("b", 10)):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_bytes(png(of_bits(bits)))
    assert [note for note in folder_source(tmp_path).listing.notes if note.startswith("warning: 16-bit images")] == [
        "warning: 16-bit images use only their lowest 12 bits (a/0.png, a/1.png), which their files do not declare, so "
        "they are read as nearly black. Scale them to 16 bits, or save them with 8."
    ]
    for i in range(4):
        (tmp_path / "a" / f"{i}.png").write_bytes(png(of_bits(16)))
    assert folder_source(tmp_path).listing.notes == ()
