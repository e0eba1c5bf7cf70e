"""The commands and the Python of README, tutorial and guides run, in order, in a folder of each page.

Options make them short (workspace.py). `make test` parses the commands of all pages, and runs README and the tutorial;
`make test-slow` runs the guides too.
"""

import ast
import contextlib
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import mnas
from mnas.latency.devices import benchmark_model
from tests.docs.pages import DOCS, ROOT, Block, blocks, pages
from tests.docs.workspace import (
    BENCHMARK,
    add_search,
    commands_of,
    make_files,
    parse_command,
    run_command,
    shorter,
    with_trial,
)
from tests.latency.phones import make_phone, run_phones, write_program
from tests.latency.sshd import PATH as SSHD
from tests.latency.sshd import running_sshd

FIRST = [ROOT / "README.md", DOCS / "tutorial.md"]
GUIDES = sorted((DOCS / "guides").glob("*.md"))
ELSEWHERE = {
    r".*\bsudo |ssh-copy-id |ssh |~/mnas/|scp ": "needs another machine, or its administrator",
    r"pip install |python3 -m venv |curl |git clone ": "downloads",
    r"adb (pair|connect|kill-server|devices|shell|push|install)": "needs a phone, or stops the adb server",
    r"\./configure|bazel |\./gradlew": "builds Android programs",
    **({} if BENCHMARK.exists() else {r"mnas bench --path anb_dataset_jsons": "needs a file of 11 MB from GitHub"}),
    r"make ": "runs this test suite or the demo, which .ci/run runs",
    r"torchrun |CUDA_VISIBLE_DEVICES": "needs several processors or machines; tests/train/test_ddp.py runs torchrun",
    r"mnas .*--weights (timm|torchvision)|mnas .*https?://": "downloads",
    r"optuna-dashboard ": "serves until it is stopped",
}
"""Beginning of a command that cannot run here -> why."""


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of files that README and tutorial begin with."""
    folder = tmp_path_factory.mktemp("files")
    with homes(folder / "homes"):
        make_files(folder)
    return folder


@pytest.fixture(scope="module")
def searched(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of files that guides begin with, which takes most of a minute."""
    folder = shutil.copytree(files, tmp_path_factory.mktemp("searched") / "files")
    with homes(folder / "homes"):
        add_search(folder)
    return folder


@contextlib.contextmanager
def homes(folder: Path):
    """Keep caches, state and configuration in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("CACHE", "STATE", "CONFIG"):
            patch.setenv(f"XDG_{kind}_HOME", str(folder / kind.lower()))
        yield patch


def runs_elsewhere(command: str) -> bool:
    return any(re.match(beginning, command) for beginning in ELSEWHERE)


def file_of(block: Block) -> str:
    """Return the name of the file that a block shows, which its first line names; empty: none."""
    match = re.match(r"# ([\w-]+\.(?:toml|py|csv))\n", block.text)
    return match[1] if match else ""


def run_block(block: Block, values: dict[str, object]) -> None:
    """Run a block, or write it to the file that its first line names."""
    if name := file_of(block):
        if name != "devices.toml":
            Path(name).write_text(block.text)
    elif block.language == "bash":
        for command in commands_of(block.text):
            if not runs_elsewhere(command):
                run_command(command)
    elif block.language == "python":
        exec(compile(shorter_calls(block.text), f"{block.page.name}:{block.line}", "exec"), values)


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory):
    """The phone `pixel` and the board `pi`, as the text of devices.toml, and the home of a user of the board."""
    with contextlib.ExitStack() as stack:
        entries, home = [], tmp_path_factory.mktemp("home")
        if shutil.which("adb"):
            phones = stack.enter_context(run_phones(tmp_path_factory.mktemp("adb")))
            phones.plug_in(FAKE0001=make_phone(tmp_path_factory.mktemp("phones") / "phone"))
            program = write_program(tmp_path_factory.mktemp("program"))
            entries.append(f"""
[pixel]
kind = "adb"
address = "FAKE0001"
benchmark_model = "{program}"
adb_server = "{phones.address}"
""")
        if SSHD:
            server = stack.enter_context(running_sshd(tmp_path_factory.mktemp("sshd")))
            home = server.home
            entries.append(f"""
[pi]
kind = "ssh"
address = "{server.address}"
python = "{sys.executable}"
""")
        yield "".join(entries), home


def needs(page: Path, device: str) -> bool:
    return any(re.search(rf"\b{device}\b(?!/)", block.text) for block in blocks(page) if block.language == "bash")


@pytest.mark.parametrize("page", pages(), ids=names)
def test_every_command_has_the_options_that_it_is_given(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for block in blocks(page):
        if name := file_of(block):
            Path(name).write_text(block.text)
        elif block.language == "bash":
            for command in commands_of(block.text):
                if command.startswith("mnas ") and "--help" not in command:
                    parse_command(command)


def test_most_pages_have_commands():
    assert sum(any(block.language == "bash" for block in blocks(page)) for page in pages()) > 20


@pytest.mark.timeout(900)  # whole searches and trainings, on busy machines too
@pytest.mark.parametrize("page", [*FIRST, *(pytest.param(page, marks=pytest.mark.slow) for page in GUIDES)], ids=names)
def test_the_page_runs(page, request, devices, tmp_path):
    for device, program in (("pixel", shutil.which("adb")), ("pi", SSHD)):
        if needs(page, device) and not program:
            pytest.skip(f"no {'adb' if device == 'pixel' else 'sshd'}: scripts/install-test-tools installs it")
    folder = tmp_path / "folder"
    shutil.copytree(request.getfixturevalue("files" if page in FIRST else "searched"), folder)
    for made in made_by(page):
        shutil.rmtree(folder / made, ignore_errors=True)
    entries, home = devices
    with homes(folder / "homes") as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        patch.syspath_prepend(str(folder))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(ROOT))
        config = folder / "homes/config/mnas"
        config.mkdir(parents=True, exist_ok=True)
        (config / "devices.toml").write_text(entries)
        # the phone's clock counts a process's own time, so long turns would not be more accurate
        patch.setattr(benchmark_model, "WARM_UP_S", 0.005)
        patch.setattr(benchmark_model, "TURN_S", 0.01)
        values: dict[str, object] = {"__name__": "__main__", "short": short}
        for block in blocks(page):
            run_block(block, values)


def made_by(page: Path) -> set[str]:
    """Return the folders that the page's first commands make."""
    text = "\n".join(block.text for block in blocks(page))
    made = set(re.findall(r"mnas search .*--run (\S+)", text))
    made |= set(re.findall(r"mnas\.search\([^)]*run=\"([^\"]+)\"", text))
    if re.search(r"mnas train 'runs/photos#|mnas\.train\(", text) or "runs/photos" in made:
        made |= {"trained"}
    return made


def shorter_calls(code: str) -> str:
    """Return the code with `short("search", ...)` instead of `mnas.search(...)`."""
    return re.sub(
        r"\bmnas\.(search|train|train_best|export|latency|fit_latency|bench|proxy_check)\(", r'short("\1", ', code
    )


def short(name: str, *arguments: object, **options: object) -> object:
    """Call a function of mnas with the options that make its command short."""
    command = {"fit_latency": "latency fit", "proxy_check": "proxy-check", "train_best": "train"}.get(name, name)
    changed = {
        flag[2:].replace("-", "_"): ast.literal_eval(value) for flag, value in shorter(command, small=name == "search")
    }
    given = tuple(with_trial(value) if isinstance(value, str) else value for value in arguments)
    return getattr(mnas, name)(*given, **(options | changed))
