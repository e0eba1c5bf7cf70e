"""The command `mnas space`."""

import pytest

from mnas.cli.main import run


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def test_the_papers_space_and_comparison(capsys):
    assert run(["space"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["op", "all", "conv", "sepconv", "mbconv3", "mbconv6"] in lines
    assert ["layers", "all", "-1", "+0", "+1"] in lines
    assert ["4", "2", "64", "4", "48", "64", "80", "3", "4", "5"] in lines
    assert "2,807,929,681,968,365,568 combinations of 42 decisions" in out
    assert "770,351,078,729,318,400 different networks" in out
    assert "factorized space, with choices for each block: 432^7 ~ 10^18\n" in out
    assert "flat space, with choices for each layer: 432^17 ~ 10^44\n" in out
    assert "S^B = 432^5 ~ 10^13, flat S^(B*N) = 432^15 ~ 10^39" in out


def test_the_flat_space_and_the_papers_count(capsys):
    assert run(["space", "per-layer"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["layers", "all", "+0"] in lines
    assert ["4", "2", "64", "4", "48", "64", "80", "4"] in lines
    assert f"{144**17:,} combinations of 85 decisions" in out
    assert "flat space, with choices for each layer and a fixed number of layers: 144^17 ~ 10^36" in out
    assert "432^15 ~ 10^39 in its typical case (B = 5, N = 3), 432^17 ~ 10^44 for the layers of this skeleton" in out


def test_the_space_of_mobilenetv4(capsys, tmp_path):
    assert run(["space", "mobilenetv4"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    for line in (
        ["start_kernel", *map(str, range(3, 11)), "0", "3", "5"],
        ["projection_activation", "1", "2", "true"],
        ["kernel", "11", "1"],
        ["2", "2", "64", "1", "48", "64", "80", "1"],
        ["head", "1", "1280", "1"],
    ):
        assert line in lines
    assert "activation" not in {line[0] for line in lines if line}
    assert "momentum 0.01, head after the pool\n" in out
    assert "25,999,348,907,114,496 combinations of 74 decisions" in out
    assert "25,999,348,907,114,496 different networks\n" in out
    path = tmp_path / "own.toml"
    for key, end in [("head_filters = 0", "no head"), ("head_norm = false", "head with a bias instead of batch norm")]:
        path.write_text(f'name = "own"\n[skeleton]\n{key}')
        assert run(["space", str(path)]) == 0
        out = capsys.readouterr().out
        assert f"momentum 0.01, {end}\n" in out
        assert ("head" in {line.split()[0] for line in out.splitlines() if line.strip()}) == (key != "head_filters = 0")


def test_the_cell_space(capsys, tmp_path):
    assert run(["space", "cell"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["pair3.input1,", "input2", "0", "1", "2", "3"] in lines
    assert f"{71_465_842_174_521_600**2:,} combinations of 40 decisions" in out
    assert f"distinct  {380_983_342_099_113**2:,} different networks" in out
    assert "each of the two cells has 71,465,842,174,521,600 ~ 10^16 combinations" in out
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\nkind = "cell"\nconcat = "chosen"\nops = ["sep3"]\npairs = 2')
    assert run(["space", str(path)]) == 0
    out = capsys.readouterr().out
    assert ["concat1", "0", "1"] in [line.split() for line in out.splitlines()]
    assert "distinct  at most" in out


def test_a_file(tmp_path, capsys):
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\n[skeleton]\nfilters = [16, 24]\nlayers = [1, 2]\nstrides = [1, 2]\n[block.2]\nkernel = [7]'
    )
    assert run(["space", str(path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kernel", "1", "3", "5"] in lines
    assert ["kernel", "2", "7"] in lines
    assert any("432 x 216" in " ".join(line) for line in lines)


def test_bad_input_gets_one_line_and_exit_code_2(tmp_path, capsys):
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\n[choices]\nkernels = [3]')
    for argument, message in [(str(path), "[choices] has no key kernels"), ("mnas", "SPACE must be one of mnasnet")]:
        assert run(["space", argument]) == 2
        complaint = capsys.readouterr().err
        assert message in complaint
        assert complaint.count("\n") == 1
