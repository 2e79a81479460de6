"""A training that takes seconds: generated scans, and settings for networks of a few weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import save_scan
from tiny_model import generated_brain

SETTINGS = """
[model]
name = "tiny"
[data]
source = "scans"
[grid]
rows = 52
columns = 40
spacing_mm = 4.0
[vqvae]
codebook_start = 4
[vqvae.network]
codes = 16
channels = [4, 8, 8]
code_dim = 6
[vqvae.training]
steps = 12
batch = 8
warmup = 2
precision = "float32"
[prior]
copies = 1
[prior.network]
channels = 8
blocks = 1
pairs = 1
attention_stride = 1
key_size = 4
value_size = 8
dropout = 0.0
[prior.training]
steps = 8
batch = 8
warmup = 2
precision = "float32"
[masked]
copies = 1
[masked.network]
channels = [8, 8]
blocks = [1, 1]
[masked.training]
steps = 6
batch = 8
warmup = 2
precision = "float32"
[baseline.network]
latents = 8
channels = [4, 8, 8]
[baseline.training]
steps = 6
batch = 8
warmup = 2
precision = "float32"
[brain.network]
channels = [2, 2]
[brain.training]
steps = 2
precision = "float32"
"""


def write_training(folder: Path, people: int = 12, slices: int = 24) -> Path:
    """Scans of so many people under ``folder/scans``, and settings beside them."""
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    for person in range(people):
        scan = generated_brain((44, 52, slices), seed=person)
        name = folder / "scans" / f"p{person:02}"
        save_scan(name.with_suffix(".nii.gz"), scan.array, scan.affine)
        mask = (scan.array > 0).astype(np.uint8)
        save_scan(folder / "scans" / f"p{person:02}_brainmask.nii.gz", mask, scan.affine)
    file = folder / "tiny.toml"
    file.write_text(SETTINGS)
    return file
