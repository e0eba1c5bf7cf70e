"""Images by path, folder, pattern and URL; a real HTTP server; files that are not images; annotated pictures."""

import functools
import http.server
import os
import socket
import threading

import numpy as np
import pytest
from foreign_models import images
from PIL import Image

from mnas.data.image import read_image
from mnas.predict import images as module
from mnas.predict.annotate import annotated, shortened
from mnas.predict.images import find_images, read_picture, read_pixels
from mnas.predict.info import Prediction


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
        elif self.path == "/elsewhere.png":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path == "/cut.png":  # announces more bytes than it sends
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b"\x89PNG\r\n\x1a\n")
        elif self.path.startswith("/circle"):
            self.send_response(302)
            self.send_header("Location", self.path + "x" if "more" in self.path else self.path)
            self.end_headers()
        elif self.path == "/steering":
            self.wfile.write(b"HTTP/1.1 500 odd\x1b[31m\x07reason\r\n\r\n")
        elif self.path == "/garbage":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def folder(tmp_path):
    """A folder with images a.png and deep/er/b.jpg, and other files."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    one, other = images(2, 20)
    Image.fromarray(one).save(tmp_path / "a.png")
    Image.fromarray(other).save(tmp_path / "deep" / "er" / "b.JPG")
    Image.fromarray(other).save(tmp_path / ".hidden" / "c.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    return tmp_path


@pytest.fixture
def server(folder):
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def found(*arguments: str) -> tuple[list[str], list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    return list(find_images(arguments, lambda *problem: problems.append(problem))), problems


def test_what_arguments_name(folder):
    a, b, broken = str(folder / "a.png"), str(folder / "deep" / "er" / "b.JPG"), str(folder / "broken.png")
    assert found(str(folder)) == ([a, broken, b], [])
    assert found(a, str(folder), a) == ([a, broken, b], [])  # each once
    assert found(str(folder / "*.png")) == ([a, broken], [])
    assert found(str(folder / "**" / "*.[jJ]*")) == ([b], [])
    assert found(str(folder / "de*")) == ([b], [])  # a folder that matches a pattern
    assert found(str(folder / "notes.txt")) == ([str(folder / "notes.txt")], [])  # named explicitly
    assert found("http://x/y.png", a) == (["http://x/y.png", a], [])
    (folder / "odd[1].png").write_bytes((folder / "a.png").read_bytes())
    assert found(str(folder / "odd[1].png")) == ([str(folder / "odd[1].png")], [])  # a file comes before a pattern
    (folder / "empty").mkdir()
    for argument, reason in (
        (str(folder / "nothing.png"), "there is no such file"),
        (str(folder / "*.gif"), "no file matches this pattern"),
        (str(folder / "empty"), "the folder contains no images (jpg, png, ...)"),
        ("ftp://x/y.png", "a URL must begin with http:// or https://"),
    ):
        assert found(argument, a) == ([a], [(argument, reason)])


def test_files_are_read_as_training_reads_them(folder):
    for name in ("a.png", "deep/er/b.JPG"):
        pixels = read_pixels(str(folder / name), 12, 0.875)
        np.testing.assert_array_equal(pixels, read_image(folder / name, 12, 0.875))


def test_what_is_no_image(folder):
    for name, reason in (
        ("notes.txt", "^it is not an image$"),
        ("broken.png", "^it is damaged or cut off: .*truncated"),
        ("nothing.png", "^there is no such file$"),
        ("deep", "^it cannot be read: Is a directory$"),
    ):
        for read in (lambda path: read_pixels(path, 8, 1.0), lambda path: read_picture(path, 100)):
            with pytest.raises(ValueError, match=reason):
                read(str(folder / name))


def test_urls(folder, server):
    pixels = read_pixels(str(folder / "a.png"), 12, 1.0)
    np.testing.assert_array_equal(read_pixels(f"{server}/a.png", 12, 1.0), pixels)
    np.testing.assert_array_equal(read_pixels(f"{server}/a.png?size=large", 12, 1.0), pixels)
    np.testing.assert_array_equal(read_pixels(f"{server}/moved.png", 12, 1.0), pixels)
    assert read_picture(f"{server}/deep/er/b.JPG", 10).size == (10, 10)


def test_urls_that_give_no_image(server, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 5.0)
    for path, reason in (
        ("/nothing.png", "^the server replied 404 "),
        ("/notes.txt", "^it is not an image$"),
        ("/broken.png", "^it is damaged or cut off: "),
        ("/cut.png", "^the server sent 8 of 5000 bytes$"),
        ("/circle", "^the server redirects it too often$"),
        ("/circle/more", "^the server redirects it too often$"),
        ("/steering", r"^the server replied 500 odd \[31m reason$"),
        ("/elsewhere.png", r"^the server redirects it to .file:///etc/passwd., which is neither http nor https$"),
        ("/garbage", "^it cannot be downloaded: "),
        ("/with space.png", "^it cannot be downloaded: "),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            read_pixels(server + path, 8, 1.0)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^it cannot be downloaded: .*refused"):
        read_pixels("http://127.0.0.1:1/a.png", 8, 1.0)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"^it is larger than 0 MB$"):
        read_pixels(f"{server}/a.png", 8, 1.0)


def test_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ValueError, match=r"^it cannot be downloaded: .*timed out$"):
            read_pixels(f"http://127.0.0.1:{silent.getsockname()[1]}/a.png", 8, 1.0)


def test_a_pipe_is_no_missing_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    problems = []
    assert list(find_images([str(tmp_path / "pipe")], lambda *problem: problems.append(problem))) == []
    assert problems == [(str(tmp_path / "pipe"), "it is not a regular file")]


def test_what_is_no_file_in_a_folder_is_named_and_not_opened(folder):
    os.mkfifo(folder / "fifo.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.png"))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "linked.png").symlink_to(folder / "fifo.png")
    (folder / "phone.heic").write_bytes(b"heic")
    (folder / "folder.png").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder.parent / "elsewhere").mkdir(exist_ok=True)
    (folder / "beside").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere" / "c.png").write_bytes((folder / "a.png").read_bytes())
    images = ["a.png", "broken.png", "beside/c.png", "deep/er/b.JPG"]
    odd = [
        ("fifo.png", "it is not a regular file"),
        ("gone.png", "it is a broken link"),
        ("linked.png", "it is not a regular file"),
        ("phone.heic", "mnas does not read .heic images; convert it to JPEG or PNG"),
        ("socket.png", "it is not a regular file"),
    ]
    problems = [(str(folder / name), reason) for name, reason in odd]
    assert found(str(folder)) == ([str(folder / name) for name in images], problems)
    named, complaints = found(str(folder / "*.png"))
    assert named == [str(folder / name) for name in ("a.png", "broken.png")]
    assert complaints == [problem for problem in problems if problem[0].endswith(".png")]
    assert found(str(folder / "gone.png")) == ([], [problems[1]])
    with pytest.raises(ValueError, match=r"^it cannot be read: Must be a regular file, but is a named pipe$"):
        read_pixels(str(folder / "fifo.png"), 8, 1.0)


# Annotated pictures


def test_the_picture_stands_above_its_classes():
    picture = Image.fromarray(images(1, 400)[0])
    long = "a class with a name that is longer than any picture is wide, " * 3
    predictions = [Prediction(label="cat", index=0, probability=0.75), Prediction(label=long, index=1, probability=0.0)]
    result = annotated(picture, predictions)
    assert result.size == (400, 400 + 2 * 12 + 2 * 28)
    np.testing.assert_array_equal(np.asarray(result)[:400], np.asarray(picture))
    bar = np.asarray(result)[400 + 12 + 4, 12 : 400 - 12]
    assert (bar == (140, 190, 150)).all(1).sum() == round(0.75 * 376) + 1
    assert annotated(Image.new("RGB", (30, 20)), predictions).size == (360, 20 + 24 + 56)


def test_names_are_cut_where_they_do_not_fit():
    from PIL import ImageFont

    font = ImageFont.load_default(18)
    assert shortened("cat", font, 200) == "cat"
    short = shortened("a" * 100, font, 200)
    assert short.endswith("a...")
    assert font.getlength(short) <= 200 < font.getlength(short.replace("...", "a..."))
