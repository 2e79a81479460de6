"""What training sees: tables of scans, prepared slices, augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_scan
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.preprocessing import CLIP, Grid, mask_to_head, prepare, to_head
from LatentSpaceRestorationLib.training.augmentation import Augmentation, augment
from LatentSpaceRestorationLib.training.slices import Slices, prepare_slices, to_uint8
from LatentSpaceRestorationLib.training.subjects import Subject, of_split, read_subjects
from LatentSpaceRestorationLib.training.vqvae import from_uint8
from tiny_model import generated_brain
from torch import Tensor

# Tables of scans


def write_table(folder: Path, text: str) -> Path:
    """A table beside three empty scans and two masks."""
    for name in ("a.nii", "b.nii", "c.nii", "a_mask.nii", "b_mask.nii"):
        (folder / name).touch()
    table = folder / "subjects.tsv"
    table.write_text(text)
    return table


def test_a_table_names_scans_masks_and_splits(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        "subject\tage\tsplit\tt1w\tbrainmask\n"
        "A\t30\ttrain\ta.nii\ta_mask.nii\nB\t40\ttune\tb.nii\tb_mask.nii\nC\t50\ttrain\tc.nii\t\n",
    )
    subjects = read_subjects(table)
    assert subjects == [
        Subject("A", "train", tmp_path / "a.nii", tmp_path / "a_mask.nii"),
        Subject("B", "tune", tmp_path / "b.nii", tmp_path / "b_mask.nii"),
        Subject("C", "train", tmp_path / "c.nii", None),
    ]
    assert [s.name for s in of_split(subjects, "train")] == ["A", "C"]
    assert read_subjects(write_table(tmp_path, "\ufeffsubject\tsplit\tt1w\n")) == []


HEADER = "subject\tsplit\tt1w\tbrainmask\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEADER}A\ttrain\ta.nii\t\nA\ttune\ta.nii\t\n", "subject A stands in two rows"),
        ("subject\tt1w\nA\ta.nii\n", r"lacks the column\(s\) split"),
        ("", r"lacks the column\(s\) split, subject, t1w"),
        (f"{HEADER}A\ttrain\tz.nii\t\n", "z.nii of subject A does not exist"),
        (f"{HEADER}A\ttrain\ta.nii\tz_mask.nii\n", "z_mask.nii of subject A does not exist"),
        (f"{HEADER}A\tlearn\ta.nii\t\n", "split 'learn'"),
        (f"{HEADER}A\ttrain\n", "line 2 lacks"),
        (f"{HEADER}A\ttrain\ta.nii\t\n\ttrain\ta.nii\t\n", "line 3 lacks"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    table = write_table(tmp_path, text)
    with pytest.raises(InputError, match=says) as refusal:
        read_subjects(table)
    assert str(table) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_subjects(tmp_path / "missing.tsv")
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")
    with pytest.raises(InputError, match="not a table"):
        read_subjects(tmp_path / "scan.nii.gz")


# Prepared slices


def test_slices_on_disk_are_what_inference_sees(tmp_path: Path) -> None:
    grid = Grid(52, 40, 4.0)
    subjects = []
    for seed, shape in enumerate([(44, 52, 12), (44, 52, 14)]):
        scan = generated_brain(shape, seed=seed)
        path = save_scan(tmp_path / f"{seed}.nii", scan.array, scan.affine)
        mask = save_scan(tmp_path / f"{seed}_m.nii", (scan.array > 0).astype("u1"), scan.affine)
        subjects.append(Subject(f"S{seed}", "train", path, mask))
    done: list[int] = []
    slices = prepare_slices(subjects, grid, done.append)
    assert done == [0, 1]
    scan = generated_brain((44, 52, 14), seed=1)
    head = to_head(scan, 4.0)
    expected = prepare(scan, head, mask_to_head(scan.array > 0, scan, head), grid)
    own = slices.subject == 1
    assert own.sum() == 14
    restored = from_uint8(torch.from_numpy(slices.values[own]))[:, 0].numpy()
    np.testing.assert_allclose(restored, expected.slices, atol=CLIP / 255.0 + 1e-4)
    np.testing.assert_allclose(slices.position[own], expected.position, atol=1e-6)
    assert (restored[~expected.mask] == -CLIP).all()

    slices.save(tmp_path / "deep" / "slices.npz")
    back = Slices.load(tmp_path / "deep" / "slices.npz")
    for part in ("values", "position", "subject"):
        np.testing.assert_array_equal(getattr(back, part), getattr(slices, part))
    assert back.names == ["S0", "S1"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["slices.npz"]


def test_a_byte_holds_a_value_to_half_a_step() -> None:
    values = np.linspace(-CLIP, CLIP, 1001, dtype=np.float32)[None, None]
    back = from_uint8(torch.from_numpy(to_uint8(values)[0]))[0, 0].numpy()
    np.testing.assert_allclose(back, values[0, 0], atol=CLIP / 255.0 + 1e-6)
    assert back[0] == -CLIP
    assert back[-1] == pytest.approx(CLIP, abs=1e-6)


def test_training_without_brain_masks_is_refused(tmp_path: Path) -> None:
    scan = generated_brain((44, 52, 12))
    path = save_scan(tmp_path / "s.nii", scan.array, scan.affine)
    with pytest.raises(ValueError, match="A has no brain mask"):
        prepare_slices([Subject("A", "train", path, None)], Grid(52, 40, 4.0))


# Augmentation


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
    none = Augmentation(*[0.0] * 10)
    given, target = augment(slices, none, torch.Generator().manual_seed(0))
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
    only = Augmentation(90.0, *[0.0] * 9)
    _, target = augment(disc, only, torch.Generator().manual_seed(0))
    assert float(((target > -1.5) != (disc > -1.5)).float().mean()) < 0.02
