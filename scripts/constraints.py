"""Print constraints.txt: the installed versions of all packages that mnas and its extras need (make constraints)."""

import platform
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
HEADER = """\
# Exact versions that `make` and CI install, by pip's --constraint; written by `make constraints`.
# A plain `pip install .` does not read this file. Each line holds for one Python and processor: others install freely.
"""


def installed(requirements: list[str]) -> dict[str, str]:
    """Return the version of each package that `requirements` need, directly or not, by canonical name."""
    versions: dict[str, str] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(text), frozenset[str]()) for text in requirements]
    while waiting:
        requirement, extras = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in extras or {""}):
            continue
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, wanted) in visited:
            continue
        visited.add((name, wanted))
        versions[name] = metadata.version(name)
        waiting += [(Requirement(text), wanted) for text in metadata.requires(name) or []]
    return versions


def main() -> None:
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    marker = f'python_version == "{python}" and platform_machine == "{platform.machine()}"'
    print(HEADER, end="")
    for name, version in sorted(installed(PROJECT["dependencies"] + extras).items()):
        print(f"{name}=={version} ; {marker}")


if __name__ == "__main__":
    main()
