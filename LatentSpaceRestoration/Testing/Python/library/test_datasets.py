"""Where scans come from: tables, BIDS, the MOOD challenge's layout, folders, DICOM, NRRD."""

from __future__ import annotations

import builtins
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import save_scan
from LatentSpaceRestorationLib.datasets.read import read_subjects
from LatentSpaceRestorationLib.datasets.splits import Splits, draw
from LatentSpaceRestorationLib.datasets.subjects import Subject, of_split, write_table
from LatentSpaceRestorationLib.errors import InputError, OutputError
from LatentSpaceRestorationLib.io.images import read_geometry, read_mask, read_volume, write_volume
from LatentSpaceRestorationLib.volume import Volume

AFFINE = np.array([[-0.9, 0.1, 0.0, 20.0], [0.1, 0.9, 0.0, -31.0], [0, 0, 1.5, 7.0], [0, 0, 0, 1]])


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# Tables


def write_text(folder: Path, text: str, name: str = "subjects.tsv") -> Path:
    """A table beside three empty scans and two masks."""
    touch(folder, "a.nii", "b.nii", "c.nii", "a_mask.nii", "b_mask.nii")
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_table_names_scans_masks_lesions_and_splits(tmp_path: Path) -> None:
    table = write_text(
        tmp_path,
        "\ufeffsubject\tage\tsplit\tt1w\tbrainmask\tlesion\n"
        "A\t30\ttrain\ta.nii\ta_mask.nii\t\n"
        "B\t40\ttune\tb.nii\tb_mask.nii\tc.nii\nC\t50\ttrain\tc.nii\t\t\n",
    )
    subjects = read_subjects(table)
    assert subjects == [
        Subject("A", "train", tmp_path / "a.nii", tmp_path / "a_mask.nii"),
        Subject("B", "tune", tmp_path / "b.nii", tmp_path / "b_mask.nii", tmp_path / "c.nii"),
        Subject("C", "train", tmp_path / "c.nii", None),
    ]
    assert [s.name for s in of_split(subjects, "train")] == ["A", "C"]
    comma = write_text(tmp_path, "subject,t1w\nA,a.nii\n", "subjects.csv")
    assert read_subjects(comma) == [Subject("A", "", tmp_path / "a.nii", None)]


def test_several_tables_are_one_set_of_scans_of_several_sites(tmp_path: Path) -> None:
    text = "subject\tsplit\tt1w\tbrainmask\n"
    ours = write_text(tmp_path / "ours", text + "A\ttrain\ta.nii\ta_mask.nii\n")
    text = "subject\tsplit\tsite\tt1w\tbrainmask\n"
    rows = "X\ttrain\teast\ta.nii\tn/a\nY\tunseen-site\twest\tb.nii\tb_mask.nii\n"
    others = write_text(tmp_path / "others", text + rows)
    assert [(s.name, s.split, s.site, s.mask is None) for s in read_subjects(ours, others)] == [
        ("A", "train", "ours", False),
        ("X", "train", "east", True),
        ("Y", "unseen-site", "west", False),
    ]
    assert read_subjects(ours)[0].site == ""
    with pytest.raises(InputError, match="two rows"):
        read_subjects(ours, ours)


HEADER = "subject\tsplit\tt1w\tbrainmask\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEADER}A\ttrain\ta.nii\t\nA\ttune\tb.nii\t\n", "A is in two sets, train and tune"),
        (f"{HEADER}A\ttrain\ta.nii\t\nA\ttrain\tb.nii\t\n", "subject A stands in two rows"),
        (HEADER, "names no subjects"),
        ("", r"lacks the column\(s\) subject, t1w"),
        (f"{HEADER}A\ttrain\tz.nii\t\n", "z.nii of subject A does not exist"),
        (f"{HEADER}A\ttrain\ta.nii\tz_mask.nii\n", "z_mask.nii of subject A does not exist"),
        (f"{HEADER}A\tlearn\ta.nii\t\n", "split 'learn'"),
        (f"{HEADER}A\ttrain\n", "line 2 lacks"),
        (f"{HEADER}A\ttrain\ta.nii\t\nB\t\tb.nii\t\n", "line 3 lacks"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    table = write_text(tmp_path, text)
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


def test_sessions_of_one_person_stay_in_one_set(tmp_path: Path) -> None:
    header = "subject\tsession\tsplit\tt1w\n"
    table = write_text(tmp_path, f"{header}A\t1\ttrain\ta.nii\nA\t2\ttrain\tb.nii\n")
    assert [(s.name, s.owner) for s in read_subjects(table)] == [("A_1", "A"), ("A_2", "A")]
    table = write_text(tmp_path, f"{header}A\t1\ttrain\ta.nii\nA\t2\ttune\tb.nii\n")
    with pytest.raises(InputError, match="A is in two sets, train and tune"):
        read_subjects(table)


# Folders


def test_bids_people_whatever_their_sessions(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "dataset_description.json",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T2w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/func/sub-02_bold.nii.gz",
        "derivatives/x/sub-02/anat/sub-02_space-MNI_desc-brain_mask.nii.gz",
        "derivatives/x/sub-02/anat/sub-02_desc-brain_mask.nii.gz",
        "derivatives/x/sub-02/anat/sub-02_label-lesion_mask.nii.gz",
    )
    first, second, third = read_subjects(tmp_path)
    assert [first.name, second.name, third.name] == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert [first.owner, second.owner, third.owner] == ["sub-01", "sub-01", "sub-02"]
    assert first.mask is None
    assert third.mask is not None
    assert third.mask.name == "sub-02_desc-brain_mask.nii.gz"
    assert third.lesion is not None
    assert first.split == ""
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-01\ttune\n")
    assert [s.split for s in read_subjects(tmp_path)] == ["tune", "tune", ""]
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-01\ttune\nsub-02\tno\n")
    with pytest.raises(InputError, match="split 'no'"):
        read_subjects(tmp_path)


def test_the_mood_challenges_layout(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("brain_train/00000.nii.gz", "brain_train/00001.nii.gz"),
        *("toy/toy_0.nii.gz", "toy/toy_1.nii.gz", "toy_label/pixel/toy_1.nii.gz"),
        "toy_label/sample/toy_1.nii.gz.txt",
    )
    subjects = read_subjects(tmp_path)
    assert [(s.name, s.owner, s.split, s.lesion is not None) for s in subjects] == [
        ("00000", "00000", "", False),
        ("00001", "00001", "", False),
        ("toy/toy_0", "toy/toy_0", "test", False),
        ("toy/toy_1", "toy/toy_1", "test", True),
    ]
    touch(tmp_path, "brain_train/00002.nii.gz")
    drawn = read_subjects(tmp_path, splits=Splits())
    assert sorted(s.split for s in drawn[:3]) == ["calibrate", "train", "tune"]
    assert [s.split for s in drawn if s.name.startswith("toy/")] == ["test", "test"]


def test_a_folder_of_images_and_what_belongs_to_them(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("p1.nii.gz", "p1_brainmask.nii.gz", "p1_lesion.nii.gz", "p2.mgz", "p3.nrrd"),
        *("p4/first.nii", "p4/second.nii", "p5/t1.nii", "p5/t1-mask.nii", ".hidden.nii", "a.txt"),
        *("p6.hdr", "p6.img"),
    )
    subjects = {s.name: s for s in read_subjects(tmp_path)}
    assert list(subjects) == ["p1", "p2", "p3", "p4_first", "p4_second", "p5", "p6"]
    assert subjects["p1"].mask == tmp_path / "p1_brainmask.nii.gz"
    assert subjects["p1"].lesion == tmp_path / "p1_lesion.nii.gz"
    assert subjects["p5"].mask == tmp_path / "p5" / "t1-mask.nii"
    assert subjects["p4_first"].owner == subjects["p4_second"].owner == "p4"


def test_a_folder_without_scans_is_refused_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path / "empty", "notes.txt")
    touch(tmp_path / "bids", "dataset_description.json")
    for name in ("empty", "bids"):
        with pytest.raises(InputError, match=rf"{name}: no scans found") as refusal:
            read_subjects(tmp_path / name)
        assert "\n" not in str(refusal.value)


# Sets that are drawn


def test_sets_are_drawn_by_person_and_stay(tmp_path: Path) -> None:
    for person in range(20):
        touch(tmp_path / "scans", f"p{person:02}/a.nii", f"p{person:02}/b.nii")
    splits = Splits(seed=3, file=tmp_path / "work" / "subjects.tsv")
    lines: list[str] = []
    first = read_subjects(tmp_path / "scans", splits=splits, report=lines.append)
    counts = Counter({s.owner: s.split for s in first}.values())
    assert counts == {"train": 13, "calibrate": 5, "tune": 2}
    assert len({(s.owner, s.split) for s in first}) == 20
    assert "seed 3" in lines[0]
    assert "13 train, 5 calibrate, 2 tune" in lines[0]
    assert read_subjects(tmp_path / "scans", splits=splits) == first
    assert read_subjects(splits.file) == first
    touch(tmp_path / "scans", "p99/a.nii", "p00/c.nii")
    more = read_subjects(tmp_path / "scans", splits=splits)
    before = {s.owner: s.split for s in first}
    assert {s.owner: s.split for s in more if s.owner in before} == before
    other = read_subjects(tmp_path / "scans", splits=Splits(seed=4))
    assert {s.owner: s.split for s in other} != {s.owner: s.split for s in more}


@pytest.mark.parametrize(
    ("number", "wanted"),
    [(3, (1, 1, 1)), (10, (4, 5, 1)), (12, (6, 5, 1)), (100, (70, 20, 10)), (2, None)],
)
def test_how_many_persons_a_set_gets(number: int, wanted: tuple[int, ...] | None) -> None:
    chosen = draw({f"p{i}": "" for i in range(number)}, Splits())
    if wanted is None:
        assert chosen is None
    else:
        assert chosen is not None
        counts = Counter(chosen.values())
        assert tuple(counts[name] for name in ("train", "calibrate", "tune")) == wanted


def test_too_few_persons_and_a_draw_that_cannot_be_kept(tmp_path: Path) -> None:
    touch(tmp_path / "two", "a.nii", "b.nii")
    with pytest.raises(InputError, match="2 persons are too few"):
        read_subjects(tmp_path / "two", splits=Splits())
    with pytest.raises(OutputError, match="cannot be written"):
        write_table(tmp_path / "two" / "a.nii" / "t.tsv", [])


# NRRD and DICOM


def test_nrrd_lies_where_nifti_does(tmp_path: Path, noise: np.ndarray) -> None:
    itk = pytest.importorskip("SimpleITK")
    save_scan(tmp_path / "scan.nii.gz", noise, AFFINE)
    image = itk.ReadImage(str(tmp_path / "scan.nii.gz"))
    for ending in (".nrrd", ".mha"):
        itk.WriteImage(image, str(tmp_path / f"s{ending}"))
        volume = read_volume(tmp_path / f"s{ending}")
        np.testing.assert_array_equal(volume.array, noise)
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
        assert volume.name == "s"
    itk.WriteImage(image > 100, str(tmp_path / "mask.nrrd"))
    mask = read_mask(tmp_path / "mask.nrrd", read_volume(tmp_path / "s.nrrd"))
    np.testing.assert_array_equal(mask, noise > 100)
    geometry = read_geometry(tmp_path / "s.nrrd")
    write_volume(tmp_path / "r.nii.gz", Volume(noise, volume.affine), like=geometry)
    np.testing.assert_allclose(read_volume(tmp_path / "r.nii.gz").affine, AFFINE, atol=1e-5)
    (tmp_path / "cut.nrrd").write_bytes((tmp_path / "s.nrrd").read_bytes()[:300])
    itk.WriteImage(itk.Compose(image, image), str(tmp_path / "two.nrrd"))
    itk.WriteImage(itk.JoinSeries([image, image]), str(tmp_path / "four.nrrd"))
    for name, says in (("cut", "damaged"), ("two", "several numbers"), ("four", "4 axes")):
        with pytest.raises(InputError, match=f"{name}.nrrd.*{says}"):
            read_volume(tmp_path / f"{name}.nrrd")


def write_series(folder: Path, array: np.ndarray, uid: str, skip: int | None = None) -> None:
    """A DICOM series with (I, J, K) voxels at ``AFFINE``."""
    import SimpleITK as itk

    folder.mkdir(parents=True, exist_ok=True)
    save_scan(folder.parent / "tmp.nii", array.astype(np.int16), AFFINE)
    image = itk.ReadImage(str(folder.parent / "tmp.nii"))
    (folder.parent / "tmp.nii").unlink()
    writer = itk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = image.GetDirection()
    for k in range(array.shape[2]):
        if k == skip:
            continue
        one = image[:, :, k]
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        tags = {
            "0008|0060": "MR",
            "0020|000e": f"1.2.826.0.1.{uid}",
            "0020|000d": "1.2.826.0.1.9",
            "0008|0018": f"1.2.826.0.1.{uid}.{k + 1}",
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{v:.9f}" for v in place),
            "0020|0037": "\\".join(f"{direction[i]:.9f}" for i in (0, 3, 6, 1, 4, 7)),
        }
        for tag, value in tags.items():
            one.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}-{k:03}"))
        writer.SetImageIO("GDCMImageIO")
        writer.Execute(one)


def test_dicom_series(tmp_path: Path, noise: np.ndarray) -> None:
    pytest.importorskip("SimpleITK")
    write_series(tmp_path / "p1" / "t1", noise, "1")
    write_series(tmp_path / "p1" / "t1", noise[:, :, :2], "2")  # a shorter one beside it
    write_series(tmp_path / "p2", noise + 1, "3")
    subjects = read_subjects(tmp_path)
    assert [(s.name, s.scan) for s in subjects] == [
        ("p1", tmp_path / "p1" / "t1"),
        ("p2", tmp_path / "p2"),
    ]
    volume = read_volume(subjects[0].scan)
    # A left-handed grid: a series is sorted along the normal of its slices, the other way.
    np.testing.assert_array_equal(volume.array, noise.astype(np.int16)[:, :, ::-1])
    turned = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    turned[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, 2] * (noise.shape[2] - 1)
    np.testing.assert_allclose(volume.affine, turned, atol=1e-3)
    assert read_subjects(tmp_path / "p2")[0].name == "p2"
    write_series(tmp_path / "p3", noise, "4", skip=3)
    with pytest.raises(InputError, match=r"p3: the slices .* missing"):
        read_volume(tmp_path / "p3")
    (tmp_path / "p4").mkdir()
    with pytest.raises(InputError, match="without a DICOM series"):
        read_volume(tmp_path / "p4")


def test_one_line_where_simpleitk_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: np.ndarray
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: object, **more: object) -> object:
        if name == "SimpleITK":
            raise ImportError(name)
        return real(name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    touch(tmp_path, "s.nrrd")
    with pytest.raises(InputError, match=r"s\.nrrd: .*install the package SimpleITK"):
        read_volume(tmp_path / "s.nrrd")
    save_scan(tmp_path / "s.nii", noise)
    np.testing.assert_array_equal(read_volume(tmp_path / "s.nii").array, noise)
