import webbrowser

from mnas.cli.main import run as mnas
from mnas.study import open_run


def test_it_prints_where_the_report_is_and_opens_it_where_asked(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with open_run(tmp_path / "a", {"data": "digits"}):
        pass
    assert mnas(["report", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a" / "report.html")
    assert (tmp_path / "a" / "report.html").stat().st_size > 1e6
    assert opened == []
    assert mnas(["report", str(tmp_path / "a"), "--open"]) == 0
    assert opened == [(tmp_path / "a" / "report.html").as_uri()]


def test_a_folder_that_is_no_run_is_one_line_and_exit_code_2(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "missing"):
        assert mnas(["report", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(folder) in error
