"""What training sees: prepared slices, copies of heads, augmentation."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_scan
from LatentSpaceRestorationLib.datasets.subjects import Subject
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.io.images import read_volume
from LatentSpaceRestorationLib.model_space import CLIP, Grid
from LatentSpaceRestorationLib.preprocessing.pipeline import BrainFinder, Preprocessing
from LatentSpaceRestorationLib.preprocessing.slices import to_head
from LatentSpaceRestorationLib.runtime.placement import Placement
from LatentSpaceRestorationLib.training.data import slice_cache
from LatentSpaceRestorationLib.training.data.augmentation import Augmentation, augment
from LatentSpaceRestorationLib.training.data.slice_cache import Brains, PreparedSet, prepare_set
from LatentSpaceRestorationLib.training.data.slices import from_uint8, to_uint8
from LatentSpaceRestorationLib.training.data.volume_augmentation import (
    VolumeAugmentation,
    vary_head,
)
from LatentSpaceRestorationLib.volume import dice
from tiny_model import generated_brain
from torch import Tensor

GRID = Grid(52, 40, 4.0)


def save_subject(folder: Path, name: str, depth: int, seed: int, split: str = "train") -> Subject:
    scan = generated_brain((44, 52, depth), seed=seed)
    path = save_scan(folder / f"{name}.nii", scan.array, scan.affine)
    mask = save_scan(folder / f"{name}_mask.nii", (scan.array > 0).astype("u1"), scan.affine)
    return Subject(name, split, path, mask)


# Prepared slices


def test_slices_on_disk_are_what_inference_sees_and_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = [save_subject(tmp_path, f"S{n}", 12 + 2 * n, n) for n in range(2)]
    lines: list[str] = []

    def prepared(who: list[Subject] = subjects, grid: Grid = GRID) -> PreparedSet:
        return prepare_set(who, grid, tmp_path / "cache", Brains(), report=lines.append)

    slices = prepared().slices
    assert slices.names == ["S0", "S1"]
    scan = generated_brain((44, 52, 14), seed=1)
    finder = BrainFinder(None, 0.0, lambda: Placement("cpu", {"brain": 1}))
    expected, _ = Preprocessing(GRID, finder)(scan, scan.array > 0)
    own = torch.from_numpy(np.flatnonzero(slices.subject == 1))
    assert len(own) == 14
    restored, position = slices.take(own.flip(0))
    restored = restored[:, 0].numpy()[::-1]
    np.testing.assert_allclose(restored, expected.slices, atol=CLIP / 255.0 + 1e-4)
    np.testing.assert_allclose(position.flip(0), expected.position, atol=1e-6)
    assert (restored[~expected.mask] == -CLIP).all()

    assert lines == []
    key = prepared().key
    with monkeypatch.context() as patch:
        patch.setattr(slice_cache, "read_volume", lambda *_, **__: pytest.fail("a scan was read"))
        assert prepared().key == key
        renamed = tmp_path / "elsewhere.nii"
        renamed.write_bytes(subjects[0].scan.read_bytes())
        assert prepared([replace(subjects[0], scan=renamed), subjects[1]]).key == key
        with pytest.raises(pytest.fail.Exception):
            prepared(grid=Grid(48, 40, 4.0))
    save_subject(tmp_path, "S1", 14, 7)  # another scan of the same name
    assert prepared().key != key


def test_slices_that_were_half_written_count_for_nothing(tmp_path: Path) -> None:
    subjects = [save_subject(tmp_path, "A", 12, 0)]
    cache = tmp_path / "cache"

    def values() -> np.ndarray:
        slices = prepare_set(subjects, GRID, cache, Brains()).slices
        return slices.take(torch.arange(len(slices)))[0].numpy()

    whole = values()
    (file,), (note,) = cache.glob("*.npy"), cache.glob("*.json")
    for spoil in (
        lambda: file.write_bytes(file.read_bytes()[:-100]),
        note.unlink,
        lambda: note.write_bytes(b"{"),
        file.unlink,
    ):
        spoil()
        np.testing.assert_array_equal(values(), whole)


def test_a_corrupt_scan_is_left_out_and_all_corrupt_is_an_error(tmp_path: Path) -> None:
    subjects = [save_subject(tmp_path, name, 12, n) for n, name in enumerate("ABC")]
    subjects[1].scan.write_bytes(subjects[1].scan.read_bytes()[:2000])
    lines: list[str] = []
    made = prepare_set(subjects, GRID, tmp_path / "cache", Brains(), report=lines.append)
    assert list(made.scans) == made.slices.names == ["A", "C"]
    assert list(made.left_out) == ["B"]
    assert len(lines) == 1
    assert re.fullmatch(r"left out: B: .*B\.nii: .*damaged.*", lines[0])
    with pytest.raises(InputError, match=r"none of the 1 scans .*B\.nii") as refusal:
        prepare_set(subjects[1:2], GRID, tmp_path / "cache", Brains(), report=lines.append)
    assert "\n" not in str(refusal.value)


def test_mixed_spacings_are_resampled_and_said(tmp_path: Path) -> None:
    subjects = [save_subject(tmp_path, "A", 12, 0)]
    fine = generated_brain((44, 52, 60), np.diag([4.0, 4.0, 2.0, 1.0]), seed=1)
    path = save_scan(tmp_path / "B.nii", fine.array, fine.affine)
    lines: list[str] = []
    made = prepare_set(
        [*subjects, Subject("B", "train", path, None)],
        GRID,
        tmp_path / "cache",
        Brains(),
        report=lines.append,
    )
    assert lines == [
        "the scans have voxels of 2 x 4 x 4 to 4 x 4 x 4 mm; all are resampled to 4 mm"
    ]
    assert (made.slices.subject == 1).sum() == 27  # without a mask: the scan is extracted already


def test_a_byte_holds_a_value_to_half_a_step() -> None:
    values = np.linspace(-CLIP, CLIP, 1001, dtype=np.float32)[None, None]
    back = from_uint8(torch.from_numpy(to_uint8(values)[0]))[0, 0].numpy()
    np.testing.assert_allclose(back, values[0, 0], atol=CLIP / 255.0 + 1e-6)
    assert back[0] == -CLIP
    assert back[-1] == pytest.approx(CLIP, abs=1e-6)


# Copies of whole heads


def test_copies_are_different_repeat_and_keep_the_brain_in_place(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    subjects = [save_subject(tmp_path, "A", 20, 0)]

    def copies(settings: VolumeAugmentation, cache: str = "cache") -> np.ndarray:
        slices = prepare_set(subjects, GRID, tmp_path / cache, Brains(), augmentation=settings)
        return slices.slices.take(torch.arange(len(slices.slices)))[0].numpy()

    alone = copies(VolumeAugmentation())
    two = copies(VolumeAugmentation(copies=2))
    assert len(two) > 2.5 * len(alone)
    np.testing.assert_array_equal(two[: len(alone)], alone)
    np.testing.assert_array_equal(copies(VolumeAugmentation(copies=2), "other"), two)
    assert not np.array_equal(copies(VolumeAugmentation(copies=2, seed=1)), two)
    three = copies(VolumeAugmentation(copies=3))
    np.testing.assert_array_equal(three[: len(two)], two)

    scan = generated_brain((44, 52, 20))
    head, mask = to_head(scan, 4.0), to_head(scan, 4.0).array > 0
    moved, brain, _ = vary_head(head, mask, 4.0, VolumeAugmentation(blur_mm=0.0, coarse=1.0), 3)
    assert moved.array.shape == head.array.shape
    assert dice(moved.array > 10, brain) > 0.95
    assert 0.7 < dice(brain, mask) < 0.999


# Augmentation


NONE = Augmentation(*[0.0] * len(fields(Augmentation)))


def head_slices(count: int = 24) -> tuple[Tensor, Tensor]:
    """Ellipses of tissue: (count, 1, 32, 24), and where they are."""
    r, c = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 24), indexing="ij")
    brain = (r.square() + (c / 0.8).square() < 0.6)[None, None].expand(count, -1, -1, -1)
    texture = torch.sin(7 * r + 3 * c)[None, None] * 2.0
    return torch.where(brain, texture, torch.tensor(-CLIP)), brain


def test_augmented_slices_keep_the_background_and_the_range() -> None:
    slices, _ = head_slices(60)
    same_intensities = {"contrast": 0.0, "brightness": 0.0, "bend": 0.0, "bias": 0.0}
    noisy = Augmentation(noise=0.5, blur=0.5, **same_intensities)
    given, target = augment(slices, noisy, torch.Generator().manual_seed(0))
    assert given.shape == target.shape == slices.shape
    outside = target == -CLIP
    assert 0.3 < float(outside.float().mean()) < 0.8
    assert bool((given[outside] == -CLIP).all())
    assert not torch.equal(given, target)
    for image in augment(slices, Augmentation(), torch.Generator().manual_seed(0)):
        assert float(image.min()) == -CLIP
        assert float(image.max()) <= CLIP
        assert bool((image[outside] == -CLIP).all())


def test_augmentation_is_drawn_anew_for_each_slice_and_repeats_with_its_generator() -> None:
    slices, _ = head_slices()
    one = augment(slices, Augmentation(), torch.Generator().manual_seed(5))
    two = augment(slices, Augmentation(), torch.Generator().manual_seed(5))
    other = augment(slices, Augmentation(), torch.Generator().manual_seed(6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])
    assert len({image.numpy().tobytes() for image in one[1]}) == len(slices)


def test_augmentation_without_changes_gives_the_slices_or_their_mirror_images() -> None:
    slices, _ = head_slices()
    given, target = augment(slices, NONE, torch.Generator().manual_seed(0))
    torch.testing.assert_close(given, target)
    flipped = slices.flip(3)
    mirrored = 0
    for image, plain, mirror in zip(target, slices, flipped, strict=True):
        same = float((image - plain).abs().max()) < 1e-3
        swapped = float((image - mirror).abs().max()) < 1e-3
        assert same != swapped
        mirrored += swapped
    assert 0 < mirrored < len(slices)


def test_rotation_keeps_the_shape_of_what_it_turns() -> None:
    disc = torch.full((8, 1, 48, 24), -CLIP)
    r, c = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(24) - 11.5, indexing="ij")
    disc[:, 0][:, r.square() + c.square() < 64] = 0.0
    only = replace(NONE, rotation_deg=90.0)
    _, target = augment(disc, only, torch.Generator().manual_seed(0))
    assert float(((target > -1.5) != (disc > -1.5)).float().mean()) < 0.02


def test_a_style_changes_tissue_by_tissue_and_leaves_order_and_middle_as_they_were() -> None:
    slices, brain = head_slices(40)
    tissue = torch.where(brain, torch.where(slices > 0, 2, 1), 0).to(torch.uint8)
    one = replace(NONE, tissue=1.0)
    _, target = augment(slices, one, torch.Generator().manual_seed(0), tissue=tissue)
    _, plain = augment(slices, one, torch.Generator().manual_seed(0))
    _, same = augment(slices, NONE, torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain, same)  # no map: nothing is added
    added = (target - plain)[(plain > -1.5) & (plain < 1.5)]
    assert 0.5 < float(added.std()) < 1.5

    curved = replace(NONE, curve=0.5)
    _, target = augment(slices, curved, torch.Generator().manual_seed(0))
    _, plain = augment(slices, NONE, torch.Generator().manual_seed(0))
    for image, before in zip(target[:, 0], plain[:, 0], strict=True):
        inside = (before > -2.5) & (image > -2.99) & (image < 2.99)
        order = before[inside].argsort()
        assert bool((image[inside][order].diff() > -1e-3).all())
        near = (before[inside].abs() < 0.05).nonzero()
        assert float(image[inside][near].abs().max()) < 0.3
    assert float((target - plain)[brain].abs().mean()) > 0.1


def test_a_tight_brain_lacks_its_outermost_voxels() -> None:
    slices, _ = head_slices(40)
    _, tight = augment(slices, replace(NONE, rim=1.0), torch.Generator().manual_seed(0))
    _, plain = augment(slices, NONE, torch.Generator().manual_seed(0))
    inside = -torch.nn.functional.max_pool2d(-(plain > -CLIP).float(), 3, 1, 1)
    assert torch.equal(tight > -CLIP, (inside > 0) & (plain > -CLIP))


def test_tissues_lie_where_their_slices_do_and_scans_of_few_count_for_more(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    subjects = [save_subject(tmp_path, name, 12, n) for n, name in enumerate("ABCD")]
    scan = read_volume(subjects[0].scan)
    labels = np.where(scan.array > np.median(scan.array[scan.array > 0]), 2, 1) * (scan.array > 0)
    path = save_scan(tmp_path / "A_tissue.nii", labels.astype(np.float32), scan.affine)
    subjects[0] = replace(subjects[0], tissue=path)
    subjects = [replace(s, site="east" if s.name == "D" else "west") for s in subjects]
    copies = VolumeAugmentation(copies=1, blur_mm=0.0, coarse=1.0, bias=0.0)
    for augmentation in (None, copies):
        made = prepare_set(
            subjects, GRID, tmp_path / "cache", Brains(), augmentation=augmentation, balance=1.0
        ).slices
        count = np.bincount(made.subject)
        assert count[3] > 2.5 * count[0]
        everything = torch.arange(len(made))
        images, _ = made.take(everything)
        tissue = made.tissue_of(everything)
        assert tissue is not None
        own = torch.from_numpy(made.subject == 0)
        assert int(tissue[~own].max()) == 0
        dark, bright = (images[own][tissue[own] == label].mean() for label in (1, 2))
        assert float(dark) < -0.3 < 0.3 < float(bright)
        known = (tissue[own] > 0) == (images[own] > -CLIP)
        assert float(known.float().mean()) > 0.97
