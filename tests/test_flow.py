"""Which module may import which: the layers of the design, and no cycle (the table stands in CONTRIBUTING.md)."""

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import mnas

LAYERS = {
    "values": (
        *("atomic", "counts", "children", "digests", "folders", "imports", "labels", "metadata", "pages"),
        *("readers", "settings", "text", "training_data", "version"),
        *("ops", "arch", "block", "block_strings", "require", "architecture", "candidate", "cell_arch"),
        *("boxes", "detector", "objective", "space", "zoo"),
    ),
    "models": ("foreign", "formats", "nn", "tflite"),
    "sources": ("data", "latency"),
    "work": ("detection", "evaluate", "export", "predict", "train", "worker_server", "workers"),
    "search": (
        *("controller", "measure", "names", "plot", "scaling", "study"),
        *("bench", "full_training", "proxycheck", "search", "shortlist"),
    ),
    "faces": ("api", "cli", "detect", "paper", "report"),
}
"""A module imports from its own layer and those above it in this table."""

RANK = {part: rank for rank, parts in enumerate(LAYERS.values()) for part in parts}
ROOT = Path(mnas.__file__).parent


def module_name(file: Path) -> str:
    """The dotted name of a file below `mnas`; empty for the facade."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


FILES = {module_name(file): file for file in ROOT.rglob("*.py")}


def imported_names(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it and also for types only."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(module: str) -> set[str]:
    """The modules of mnas that `module` imports."""
    modules = set()
    for name in imported_names(FILES[module]):
        if name.split(".")[0] == "mnas":
            inner = name.removeprefix("mnas").removeprefix(".")
            while inner not in FILES:
                inner = inner.rpartition(".")[0]
            modules.add(inner)
    return modules - {module}


@functools.cache
def all_imports() -> dict[str, set[str]]:
    """Modules of mnas and what each imports; not read when this file is imported, which every worker does."""
    return {module: imports(module) for module in FILES}


def part_of(module: str) -> str:
    return module.split(".")[0]


def a_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some nodes that reach each other, in order; empty where no node reaches itself."""
    finished: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return path[path.index(node) :]
        if node in finished:
            return []
        for other in sorted(graph.get(node, ())):
            if cycle := visit(other, [*path, node]):
                return cycle
        finished.add(node)
        return []

    return next((cycle for node in sorted(graph) if (cycle := visit(node, []))), [])


def test_every_part_has_a_layer():
    assert {part_of(module) for module in FILES} - {""} == set(RANK)


def test_imports_go_down():
    wrong = [
        f"{module} imports {other}"
        for module, others in all_imports().items()
        for other in others
        if module and (not other or RANK[part_of(other)] > RANK[part_of(module)])
    ]
    assert not wrong, "a module imports only from its own layer and those below, and never the facade `mnas`"


def test_no_two_modules_import_each_other():
    assert a_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert not a_cycle({module: others for module, others in all_imports().items() if module})


def test_nobody_imports_the_command_line():
    others = {module: imported for module, imported in all_imports().items() if part_of(module) != "cli"}
    assert not [module for module, imported in others.items() if "cli" in map(part_of, imported)]


def test_no_two_parts_import_each_other():
    parts: dict[str, set[str]] = {}
    for module, others in all_imports().items():
        if module:
            parts.setdefault(part_of(module), set()).update({part_of(other) for other in others} - {part_of(module)})
    assert not a_cycle(parts)


SLOW = {
    *("data.detection.view", "evaluate.proxy", "nn.detection.decoding", "nn.detection.loss", "paper.ssd"),
    "train.recipe",
}
"""Modules that import timm or torchvision, which take two seconds, before a function needs them."""


def test_few_modules_import_timm_or_torchvision_at_once():
    first = {
        module
        for module, file in FILES.items()
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and (getattr(node, "module", "") or node.names[0].name).split(".")[0] in ("timm", "torchvision")
    }
    assert first == SLOW
