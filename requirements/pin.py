"""Write the pinned requirement files from what is installed in this environment.

Run it in an environment that passes the tests: ``.venv/bin/python requirements/pin.py``. The direct requirements are
read from setup.cfg; each file holds the closure of its own requirements, without what the file it builds on holds.
"""

from __future__ import annotations

import configparser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parent
DEVELOPMENT_EXTRAS = ("mujoco", "ray", "report", "tune", "zoo", "docs", "dev")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def closure(requirements: list[str]) -> dict[str, str]:
    """Names and versions of all that ``requirements`` need here, as ``{canonical name: "Name==version"}``."""
    environment: dict[str, str] = {key: str(value) for key, value in default_environment().items()}
    pinned: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(requirement, "") for requirement in requirements]
    while queue:
        text, extra = queue.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate(environment | {"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{text} is not installed: install the development requirements first") from None
        # The public version alone: 2.13.0 also admits the build 2.13.0+cpu.
        pinned[name] = f"{found.metadata['Name']}=={Version(found.version).public}"
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                queue += [(needed, wanted) for needed in found.requires or []]
    return pinned


def write(name: str, heading: str, pins: dict[str, str], builds_on: str | None = None) -> None:
    rows = [f"# {heading}", "# Written by requirements/pin.py.", *([f"-r {builds_on}"] if builds_on else [])]
    (HERE / name).write_text("\n".join(rows + [pins[key] for key in sorted(pins)]) + "\n")


def main() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(HERE.parent / "setup.cfg")
    core = closure(lines(setup["options"]["install_requires"]))
    extras = [row for extra in DEVELOPMENT_EXTRAS for row in lines(setup["options.extras_require"][extra])]
    torch = {"torch": core.pop("torch")}
    development = {key: pin for key, pin in closure(extras).items() if key not in core and key not in torch}
    write("torch.txt", "A CPU build saves several GB: give pip an index or a folder (find-links) that has one.", torch)
    write("core.txt", "What `import orl` and the job-shop rooms need.", core, builds_on="torch.txt")
    write("dev.txt", f"The extras {', '.join(DEVELOPMENT_EXTRAS)}.", development, builds_on="core.txt")


if __name__ == "__main__":
    main()
