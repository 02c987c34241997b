"""Write envs/defectflow.yaml, the environment of `snakemake --sdm conda`, from requirements.lock.

Snakemake keeps a copy of the file elsewhere, so that it cannot refer to the lock; and it re-runs a job when the text of
its environment has changed, so that a new version has to stand in it.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# For `snakemake --sdm conda`: the packages of requirements.lock. Written by envs/from_lock.py (make lock).
# The file is checked against the lock; it has never been built with conda.
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python =3.11
  - pip =25.2
  - pip:
"""


def environment(lock: str) -> str:
    """The environment file for the text of a lock: every package with version and condition, in the lock's order."""
    packages = re.findall(r"^([a-z0-9][^\\\n]*==[^\\\n]*?) *\\?$", lock, flags=re.MULTILINE)
    return HEAD + "".join(f"      - {_quoted(package)}\n" for package in packages)


def _quoted(text: str) -> str:
    return f'"{text}"' if ";" in text else text


if __name__ == "__main__":
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    (ROOT / "envs/defectflow.yaml").write_text(environment(lock), encoding="utf-8")
