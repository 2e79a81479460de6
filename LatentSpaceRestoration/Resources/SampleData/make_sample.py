"""Makes the sample that the panel's tutorial uses: a brain that nobody has, and a lesion in it.

Run as ``python make_sample.py``; it writes the files beside itself and the picture of the sample
data module, ``../Icons/GeneratedBrain.png``. It takes some minutes.

The brain is drawn from the shipped model: every slice is a draw of the masked prior, code by code,
at its position from below to above. No scan takes part. Slices would not fit on each other if each
were drawn by itself, so that they share their randomness: the noise that decides a code changes
slowly from slice to slice, and each slice alone still is a draw of the prior. A code that is unlike
the one in the next slice is made less likely besides. The lesion is that of ``lsr demo``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image
from scipy import ndimage, stats

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from LatentSpaceRestorationLib.bundle.bundle import find_bundle, read_bundle  # noqa: E402
from LatentSpaceRestorationLib.evaluation.synthetic.painted_lesion import paint_lesion  # noqa: E402
from LatentSpaceRestorationLib.inference.latent_model import LatentModel  # noqa: E402
from LatentSpaceRestorationLib.volume import Volume  # noqa: E402

SEED = 2
SLICES = 75
SPACING_MM = 2.0
#: Codes are drawn in so many groups, each given those before it.
GROUPS = 48
#: Over how many slices noise stays alike, standard deviation of a Gaussian.
ALIKE = 6.0
#: Temperature of the first codes, which give the shape, and of the last, which give the texture.
TEMPERATURES = (0.4, 0.95)
#: How much unlike neighbours weigh, in nats at the median distance of keys.
COUPLING = 1.5
#: Values of the brain's median, and of a robust standard deviation, in the image.
MEDIAN, SCALE, NOISE = 150.0, 34.0, 4.0
#: Slices over which the top is rounded off, and by how much more sideways than upwards.
DOME_SLICES, DOME_WIDTH = 11, 1.8
LESION_MM, LESION_RADIUS_MM = (26.0, -24.0, 20.0), 10.0


def positions() -> torch.Tensor:
    """(SLICES,) positions from below to above; the last ones are the top of the brain."""
    return (-0.5 + (torch.arange(SLICES) + 4.5) * SPACING_MM / 150.0).clamp(max=0.5)


def draw_codes(networks: LatentModel, seed: int) -> torch.Tensor:
    """(SLICES, h, w) codes of a brain."""
    prior, keys = networks.masked, networks.vqvae.codebook.keys
    assert prior is not None
    distance = torch.cdist(keys, keys).square()
    distance /= distance[distance > 0].median()
    rng = np.random.default_rng(seed)
    rows, columns = prior.shape
    codes = torch.full((SLICES, rows, columns), prior.mask)
    position = positions()
    groups = np.array_split(rng.permutation(rows * columns), GROUPS)
    for number, places in enumerate(groups):
        noise = slow_gumbel(rng, (SLICES, len(places), prior.codes))
        share = number / (GROUPS - 1)
        temperature = TEMPERATURES[0] * (1.0 - share) + TEMPERATURES[1] * share
        row, column = (torch.from_numpy(index) for index in divmod(places, columns))
        for first in (0, 1):  # every other slice sees its neighbours
            which = torch.arange(first, SLICES, 2)
            logits = prior(codes[which], position[which]).float().log_softmax(1)
            logits = logits[:, :, row, column].permute(0, 2, 1)
            for beside in ((which + step).clamp(0, SLICES - 1) for step in (-1, 1)):
                neighbours = codes[beside][:, row, column]
                known = neighbours < prior.mask
                unlike = distance[neighbours.clamp(max=prior.codes - 1)]
                logits = logits - COUPLING * torch.where(known[..., None], unlike, 0.0)
            drawn = (logits / temperature + noise[which]).argmax(2)
            codes[which[:, None], row[None], column[None]] = drawn
        print(f"drawn {number + 1} of {GROUPS}", flush=True)
    return codes


def slow_gumbel(rng: np.random.Generator, shape: tuple[int, int, int]) -> torch.Tensor:
    """Gumbel noise, each value by itself as ever, that changes slowly along the first axis."""
    normal = rng.standard_normal(shape).astype(np.float32)
    normal = ndimage.gaussian_filter1d(normal, ALIKE, axis=0, mode="reflect")
    normal /= normal.std()
    uniform = np.clip(stats.norm.cdf(normal), 1e-7, 1.0 - 1e-7)
    return torch.from_numpy((-np.log(-np.log(uniform))).astype(np.float32))


def decode(networks: LatentModel, codes: torch.Tensor) -> np.ndarray:
    """(SLICES, rows, columns) image, in robust standard deviations from the brain's median."""
    latents = networks.vqvae.codebook.keys[codes].permute(0, 3, 1, 2)
    around = torch.cat([latents[:1], latents, latents[-1:]])
    latents = 0.25 * around[:-2] + 0.5 * latents + 0.25 * around[2:]
    position = positions()
    pieces = [
        networks.vqvae.decode_latents(some, p)[:, 0]
        for some, p in zip(latents.split(16), position.split(16), strict=True)
    ]
    # One slice that differs from both of its neighbours is a chance of the draw.
    return ndimage.median_filter(torch.cat(pieces).numpy(), (3, 1, 1))


def to_volume(image: np.ndarray, seed: int) -> Volume:
    """The image as a scan without skull, with a scan's noise, 0 outside the brain."""
    share = ndimage.median_filter((image > -2.3).astype(np.float32), (5, 1, 1))
    share = ndimage.gaussian_filter(share, (1.5, 0.8, 0.8))
    labels, _ = ndimage.label(ndimage.binary_opening(rounded_off(share > 0.5), iterations=2))
    brain = labels == 1 + np.bincount(labels.flat)[1:].argmax()
    brain = ndimage.binary_fill_holes(brain)
    noise = np.random.default_rng(seed).normal(0.0, NOISE, image.shape)
    values = np.where(brain, np.clip(MEDIAN + SCALE * image + noise, 1.0, 255.0), 0.0)
    # Rows run backwards from the front, columns from the patient's right to the left.
    array = values.transpose(2, 1, 0).round().astype(np.float32)
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    middle = np.array(ndimage.center_of_mass(array > 0))
    affine[:3, 3] = -affine[:3, :3] @ middle.round()
    return Volume(array, affine, "generated")


def rounded_off(brain: np.ndarray) -> np.ndarray:
    """A brain whose top is a dome: its topmost slices are drawn as wide as those below them."""
    kept = brain.copy()
    areas = brain.sum(axis=(1, 2))
    top = int(np.flatnonzero(areas > 0.4 * areas.max()).max())
    kept[top + 1 :] = False
    for below in range(DOME_SLICES):
        slope = 1.0 - below / DOME_SLICES
        narrowed = DOME_SLICES * DOME_WIDTH * (1.0 - np.sqrt(1.0 - slope * slope))
        inside = ndimage.distance_transform_edt(brain[top - below])
        kept[top - below] = inside > narrowed
    return kept


def save(name: str, array: np.ndarray, affine: np.ndarray, words: str) -> None:
    """Write an 8-bit image that says of itself what it is."""
    image = nibabel.Nifti1Image(array.astype(np.uint8), affine)
    image.header["descrip"] = words
    image.header.set_xyzt_units("mm")
    nibabel.save(image, HERE / name)


def picture(array: np.ndarray) -> Image.Image:
    """A slice through the lesion, as the picture in the list of samples."""
    index = np.linalg.solve(np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM]), LESION_MM)
    middle = np.array(ndimage.center_of_mass(array > 0)).round()
    grey = array[:, :, int((index + middle).round()[2])].T
    side = max(grey.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = ((side - n) // 2 for n in grey.shape)
    square[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return Image.fromarray(square).resize((128, 128), Image.Resampling.BICUBIC)


def main() -> None:
    """Draw, paint, write."""
    networks = LatentModel.load(read_bundle(find_bundle("brain-t1")))
    with torch.inference_mode():
        image = decode(networks, draw_codes(networks, SEED))
    painted, lesion = paint_lesion(to_volume(image, SEED), LESION_MM, LESION_RADIUS_MM, seed=SEED)
    array = painted.array.round()
    save("GeneratedBrain.nii.gz", array, painted.affine, "synthetic: drawn from model brain-t1")
    save("GeneratedLesion.nii.gz", lesion, painted.affine, "synthetic: painted lesion")
    picture(array).save(HERE.parent / "Icons" / "GeneratedBrain.png", optimize=True)


if __name__ == "__main__":
    main()
