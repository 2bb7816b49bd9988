"""The virtual environment with the programs that we are compared with: `.venv-bench`, apart from the program's own.

    python -m benchmarks.bench_venv

`make bench-setup` runs it. Packages are installed one by one, so that one that does not install here keeps no other
away: the comparisons say that it is missing and go on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-bench"
REQUIREMENTS = ROOT / "requirements-bench.txt"
REST = "# --- what those ask for"


def python() -> Path | None:
    """Its interpreter; None before `make bench-setup`."""
    path = FOLDER / "bin" / "python"
    return path if path.is_file() else None


def wanted(text: str) -> list[str]:
    """The `name==version` of every package that we ask for ourselves."""
    return [line.split()[0] for line in text.partition(REST)[0].splitlines() if line and not line.startswith("#")]


def has(interpreter: Path, modules: tuple[str, ...]) -> bool:
    """Whether that interpreter can import all of these."""
    code = "import " + ", ".join(modules) if modules else "pass"
    return subprocess.run([str(interpreter), "-c", code], capture_output=True, check=False).returncode == 0


def main() -> int:
    if python() is None:
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet", "--constraint", str(REQUIREMENTS)]
    failed = []
    for package in wanted(REQUIREMENTS.read_text()):
        print(f"Installing {package} ...", flush=True)
        if subprocess.run([*pip, package], check=False).returncode:
            failed.append(package)
    if failed:
        print(f"Not installed: {', '.join(failed)}. The comparisons leave them out and say so.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
