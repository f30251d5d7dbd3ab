"""Package metadata, read from `settings.ini` so that nbdev and pip agree on every value."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]


def words(key):
    "The space-separated requirements under `key`"
    return cfg.get(key, "").split()


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["fairparse", "fairparse.*"]),
    package_data={"fairparse": ["assets/**/*"]},
    install_requires=words("requirements"),
    extras_require={
        extra: words(f"{extra}_requirements")
        for extra in ("offline", "onnx", "docs", "clusters", "dev")
    },
    entry_points={"console_scripts": words("console_scripts")},
)
