"""Fetches a version of NiiVue, the viewer of pages, and writes down which it is.

Run as ``python fetch_niivue.py [VERSION]``, with npm installed; without a version it takes the
newest. The tests of the pages (``test_viewer.py``) say whether the viewer still works with it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE, FILE, LICENCE = "@niivue/niivue", "dist/niivue.umd.js", "BSD-2-Clause"


def main(version: str = "latest") -> None:
    """Fetch it; nothing is changed here unless all of it is there, under the same licence."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", f"{PACKAGE}@{version}"], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            about = json.loads(_read(files, "package/package.json"))
            script = _read(files, f"package/{FILE}")
    if about["license"] != LICENCE:
        sys.exit(f"{PACKAGE} is under {about['license']} now, not {LICENCE}: read it first")
    record = {
        "name": PACKAGE,
        "version": about["version"],
        "file": FILE,
        "sha256": hashlib.sha256(script).hexdigest(),
        "licence": LICENCE,
    }
    (HERE / "niivue.umd.js").write_bytes(script)
    (HERE / "niivue.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{PACKAGE} {about['version']}, {len(script) / 1e6:.2f} MB")


def _read(files: tarfile.TarFile, name: str) -> bytes:
    member = files.extractfile(name)
    assert member is not None
    return member.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
