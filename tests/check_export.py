"""Clean all notebooks and export the package: neither may change a file. Run as a script

Names the files that did change."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {"__pycache__", ".ipynb_checkpoints"}


def hash_tree(root=ROOT):
    """SHA-256 of every file under nbs/ and fairparse/, by its path

    Files that git does not know included."""
    files = [
        p
        for folder in ("nbs", "fairparse")
        for p in sorted((root / folder).rglob("*"))
        if p.is_file() and not SKIPPED & set(p.parts)
    ]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def changed(before, after):
    "Files that differ between two hashes of the tree, with what happened to them"

    def word(path):
        if path not in before:
            return "is new"
        return "changed" if path in after else "was removed"

    paths = sorted(before.keys() | after.keys())
    return [f"{path} {word(path)}" for path in paths if before.get(path) != after.get(path)]


def main(root=ROOT):
    "Exit code: 1 if cleaning or exporting changed anything"
    before, tools = hash_tree(root), Path(sys.executable).parent
    subprocess.run([tools / "nbdev_clean", "--fname", "nbs"], cwd=root, check=True)
    subprocess.run([tools / "nbdev_export"], cwd=root, check=True)
    if not (differences := changed(before, hash_tree(root))):
        return 0
    print(
        (
            "nbdev_clean and nbdev_export changed files; they are right now, look at them and "
            "commit them:"
        ),
        *differences,
        sep="\n  ",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
