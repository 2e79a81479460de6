"""Cohorts in one process: which scans, what is written, and going on after a break."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Lsr, one_line, save_scan
from LatentSpaceRestorationLib.cohort import cluster, records
from LatentSpaceRestorationLib.cohort.inputs import CohortScan, find_scans
from LatentSpaceRestorationLib.cohort.names import ResultPlace, places, tell_apart
from LatentSpaceRestorationLib.cohort.scores import read_scores
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.results.files import ENDINGS, named_files
from tiny_model import generated_brain

GB = 10**9


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(scans: Sequence[CohortScan]) -> list[str]:
    return [scan.name for scan in scans]


# Which scans there are


def test_scans_come_from_files_globs_folders_and_tables(tmp_path: Path) -> None:
    touch(tmp_path, "one.nii.gz", "in/two.nii", "in/two_mask.nii", "deep/x/three.mgz", "four.nii")
    touch(tmp_path, "four_brain.nii", "run/sub-old/anat/sub-old_T1w_anomaly-map.nii.gz")
    table = tmp_path / "table.tsv"
    table.write_text(
        "subject\tsplit\tt1w\tbrainmask\nD\t\tfour.nii\tfour_brain.nii\nE\ttest\tgone.nii\t\n"
    )
    inputs = [
        *(tmp_path / "one.nii.gz", tmp_path / "in", f"{tmp_path}/deep/**/*.mgz", table),
        *(tmp_path / "nowhere.nii", tmp_path / "one.nii.gz", tmp_path / "run" / "sub-old"),
    ]
    scans = find_scans(inputs, leave_out=tmp_path / "run")
    assert names(scans) == ["one", "two", "three", "D", "E", "nowhere"]
    assert {scan.name: scan.mask for scan in scans if scan.mask} == {
        "D": tmp_path / "four_brain.nii"
    }
    assert all(scan.file.is_absolute() for scan in scans)
    (masked,) = find_scans([tmp_path / "in"], leave_out=tmp_path / "run", with_masks=True)
    assert masked.mask == tmp_path / "in" / "two_mask.nii"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere", "no such file or folder"),
        ("*.mgz", "nothing fits this pattern"),
        ("empty", "no scans found"),
        ("table.tsv", "no such file or folder"),
    ],
)
def test_inputs_that_are_nothing_are_refused(tmp_path: Path, given: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=says):
        find_scans([tmp_path / given], leave_out=tmp_path / "run")


def test_bids_scans_keep_their_labels(tmp_path: Path) -> None:
    touch(
        tmp_path / "ds",
        "dataset_description.json",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_run-2_T1w.nii.gz",
        "derivatives/lsr/sub-01/anat/sub-01_T1w_restoration.nii.gz",
    )
    scans = find_scans([tmp_path / "ds"], leave_out=tmp_path / "ds" / "derivatives" / "lsr")
    assert [scan.place for scan in scans] == [
        ResultPlace("sub-01/anat", "sub-01_T1w"),
        ResultPlace("sub-02/ses-a/anat", "sub-02_ses-a_run-1_T1w"),
        ResultPlace("sub-02/ses-a/anat", "sub-02_ses-a_run-2_T1w"),
    ]


def test_scans_of_one_name_are_told_apart() -> None:
    files = [Path("/d/a/T1.nii"), Path("/d/b/T1.nii.gz"), Path("/d/c.nii"), Path("/d/c.mgz")]
    named = tell_apart([("T1", files[0]), ("t1", files[1]), ("c", files[2]), ("c", files[3])])
    assert named[:2] == ["a_T1", "b_t1"]
    assert len({name.casefold() for name in named}) == 4
    assert all(name.startswith("c_") for name in named[2:])
    # In whatever order they come.
    again = tell_apart([("c", files[3]), ("c", files[2])])
    assert again == named[:1:-1]

    both = places([("x-1", Path("/d/x-1.nii")), ("x1", Path("/d/x1.nii")), ("é", Path("/d/é.nii"))])
    assert both[2] == ResultPlace("sub-scan/anat", "sub-scan_T1w")
    assert len({place.stem for place in both}) == 3
    twice = [("p_sub-1_T1w", Path("/p/sub-1_T1w.nii")), ("q_sub-1_T1w", Path("/q/sub-1_T1w.nii"))]
    assert [place.folder for place in places(twice)] == ["sub-psub1/anat", "sub-qsub1/anat"]


def write_series(folder: Path, number: int, slices: int, seed: int = 0) -> None:
    """A DICOM series of a generated brain, 4 mm, beside what lies there."""
    itk = pytest.importorskip("SimpleITK")
    folder.mkdir(parents=True, exist_ok=True)
    brain = generated_brain(seed=seed).array.astype(np.uint16)
    writer = itk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(slices):
        image = itk.GetImageFromArray(brain[:, :, k].T)
        image.SetSpacing([4.0, 4.0])
        tags = {
            "0008|0060": "MR",
            "0020|000e": f"1.2.826.0.1.3680043.2.1125.{number}",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.{number}.{k + 1}",
            "0020|0011": str(number),
            "0020|0013": str(k + 1),
            "0020|0032": f"-86\\-102\\{4 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "4",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number:03}_{k:03}.dcm"))
        writer.Execute(image)


def test_each_series_of_a_dicom_folder_is_a_scan(
    tmp_path: Path, cohort: Lsr, tiny_model: Path
) -> None:
    write_series(tmp_path / "pat", 2, 40)
    write_series(tmp_path / "pat", 11, 38, seed=1)
    status, _, err = cohort(tmp_path / "pat")
    assert status == 0, err
    rows = read_scores(tmp_path / "run")
    assert [row["id"] for row in rows] == ["pat_series-2", "pat_series-11"]
    depth = []
    for row in rows:
        figures = json.loads((tmp_path / "run" / row["result"]).read_text(encoding="utf-8"))
        depth.append(figures["scan"])
        assert float(row["score"]) == figures["sample_score"]
    assert depth == ["pat", "pat"]
    assert rows[0]["score"] != rows[1]["score"]


# A run


@pytest.fixture
def cohort(lsr: Lsr, tiny_model: Path, tmp_path: Path) -> Lsr:
    """``lsr cohort run ...`` in this process, with the tiny model and one restoration."""

    def run(*arguments: object) -> tuple[int, str, str]:
        options = ["--model", tiny_model, "--restorations", 1, "--device", "cpu", "--jobs", 0]
        return lsr("cohort", tmp_path / "run", *options, *arguments)

    return run


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of two scans and one file that is none."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed, name in enumerate(("a", "c")):
        brain = generated_brain(seed=seed)
        save_scan(folder / f"{name}.nii.gz", brain.array, brain.affine)
    (folder / "b.nii.gz").write_bytes(b"no image")
    return folder


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scans that were given to the model."""
    seen: list[str] = []
    detect: Callable[..., object] = Detector.detect

    def spy(self: Detector, volume, *options, **others):  # type: ignore[no-untyped-def]
        seen.append(volume.name)
        return detect(self, volume, *options, **others)

    monkeypatch.setattr(Detector, "detect", spy)
    return seen


def test_a_row_a_scan_and_the_files_of_lsr_detect(
    cohort: Lsr, detect: Lsr, scans: Path, tmp_path: Path
) -> None:
    status, out, err = cohort(scans)
    assert status == 3
    assert "2 of 3 scans are done" in out
    assert "lsr: error: b: " in err
    run = tmp_path / "run"
    rows = read_scores(run)
    assert [(row["id"], row["status"]) for row in rows] == [
        ("a", "done"),
        ("b", "failed"),
        ("c", "done"),
    ]
    assert "is not an image that can be read" in rows[1]["reason"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "3 scans: 2 analysed" in page
    assert page.count("data:image/webp") == 2
    assert "is not an image that can be read" in page
    assert rows[1]["score"] == rows[1]["result"] == rows[0]["reason"] == "n/a"
    assert "the scan is already brain-extracted and taken as it is" in rows[0]["warnings"]
    assert detect(scans / "a.nii.gz", scans / "c.nii.gz")[0] == 0
    for row in rows[::2]:
        alone = named_files(row["id"], tmp_path / "out")
        mine = named_files(f"sub-{row['id']}_T1w", run / f"sub-{row['id']}" / "anat")
        for ending in sorted(set(ENDINGS) - {"anomaly.json"}):
            assert alone[ending].read_bytes() == mine[ending].read_bytes(), ending
        one, other = (
            json.loads(files["anomaly.json"].read_text(encoding="utf-8")) for files in (alone, mine)
        )
        assert one.pop("seconds").keys() == other.pop("seconds").keys()
        assert one == other
        assert run / row["result"] == mine["anomaly.json"]
        told = (row["score"], row["percentile"], row["p"], row["model"], row["version"])
        keys = ("sample_score", "percentile", "p_value", "model", "version")
        assert told == tuple(str(one[key]) for key in keys)
        assert float(row["seconds"]) > 0
    description = json.loads((run / "dataset_description.json").read_text(encoding="utf-8"))
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Version"] == rows[0]["version"]
    assert json.loads((run / "scores.json").read_text(encoding="utf-8")).keys() == rows[0].keys()


def test_a_run_goes_on_with_what_is_not_done(
    cohort: Lsr, scans: Path, tmp_path: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Detector.detect

    def stop_at_c(self: Detector, volume, *options, **others):  # type: ignore[no-untyped-def]
        if volume.name == "c":
            raise KeyboardInterrupt
        return spy(self, volume, *options, **others)

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "detect", stop_at_c)
        status, _, err = cohort(scans)
    assert status == 130
    assert err.rstrip().endswith("lsr: error: cancelled")
    assert [row["id"] for row in read_scores(tmp_path / "run")] == ["a", "b"]

    status, _, err = cohort(scans)
    assert status == 3
    assert "1 of 3 scans were done before" in err
    assert [row["id"] for row in read_scores(tmp_path / "run")] == ["a", "b", "c"]
    assert looked_at == ["a", "c"]

    # Bytes count, not names or times; so do settings, and whether the results are there.
    shutil.move(scans / "a.nii.gz", scans / "z.nii.gz")
    shutil.copy(scans / "z.nii.gz", scans / "a.nii.gz")
    (scans / "z.nii.gz").unlink()
    brain = generated_brain(seed=7)
    save_scan(scans / "c.nii.gz", brain.array, brain.affine)
    assert cohort(scans)[0] == 3
    assert looked_at == ["a", "c", "c"]
    (tmp_path / "run" / "sub-c" / "anat" / "sub-c_T1w_anomaly.png").unlink()
    assert cohort(scans)[0] == 3
    assert looked_at == ["a", "c", "c", "c"]
    assert cohort(scans, "--seed", 4)[0] == 3
    assert looked_at == ["a", "c", "c", "c", "a", "c"]
    assert [row["seed"] for row in read_scores(tmp_path / "run")] == ["4", "4", "4"]

    # One scan of it again: the others keep their rows.
    assert cohort(scans / "c.nii.gz", "--seed", 4)[0] == 0
    assert sorted(row["id"] for row in read_scores(tmp_path / "run")) == ["a", "b", "c"]
    assert len(looked_at) == 6


def test_what_a_scan_is_known_by(tmp_path: Path) -> None:
    """Its bytes, in a second file too, its mask's, and how it is looked at; not its name."""
    for name in ("one.hdr", "one.img", "two.hdr", "two.img", "mask.nii"):
        (tmp_path / name).write_bytes(b"same")
    one, two = (CohortScan(name, tmp_path / f"{name}.hdr") for name in ("one", "two"))
    masked = replace(one, mask=tmp_path / "mask.nii")
    key = records.key_of(one, "settings")
    assert key == records.key_of(two, "settings")
    assert len({key, records.key_of(one, "others"), records.key_of(masked, "settings")}) == 3
    (tmp_path / "two.img").write_bytes(b"other")
    assert records.key_of(two, "settings") != key
    with pytest.raises(InputError, match="no such file"):
        records.key_of(CohortScan("x", tmp_path / "x.nii"), "settings")


def test_a_table_that_cannot_be_written_leaves_the_old_one(
    cohort: Lsr, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cohort(scans)[0] == 3
    before = (tmp_path / "run" / "scores.tsv").read_bytes()
    write = Path.write_text

    def full(self: Path, text: str, *arguments: object, **options: object) -> int:
        if self.name != "scores.tsv":
            return write(self, text, *arguments, **options)  # type: ignore[arg-type]
        write(self, text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    status, _, err = cohort(scans)
    assert status == 2
    assert "No space left on device" in err.splitlines()[-1]
    assert (tmp_path / "run" / "scores.tsv").read_bytes() == before


def test_folders_that_hold_something_else_are_refused(
    cohort: Lsr, lsr: Lsr, scans: Path, tmp_path: Path
) -> None:
    touch(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii")
    (tmp_path / "ds" / "dataset_description.json").write_text('{"Name": "mine"}')
    status, _, err = lsr("cohort", tmp_path / "ds", scans, "--jobs", 0)
    assert status == 2
    assert "is another data set" in one_line(err)

    assert cohort(scans / "a.nii.gz")[0] == 0
    (tmp_path / "more").mkdir()
    shutil.copy(scans / "c.nii.gz", tmp_path / "more" / "a.nii.gz")
    status, _, err = cohort(tmp_path / "more")
    assert status == 2
    assert "would replace those of" in one_line(err)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--jobs", "-1"], "not between 0 and 1024"),
        (["--jobs", "2", "--scheduler", "tcp://x:1"], "not of the one of --scheduler"),
        (["--mode", "paper", "--method", "nll", "--jobs", 0], "mode paper is of method lsr"),
        (["--method", "vae", "--jobs", 0], "cannot do method"),
        (["--model", "nobody", "--jobs", 0], "there is no model nobody"),
    ],
)
def test_unusable_arguments(
    lsr: Lsr, scans: Path, tiny_model: Path, tmp_path: Path, options: list[object], says: str
) -> None:
    status, _, err = lsr("cohort", tmp_path / "run", scans, "--model", tiny_model, *options)
    assert status == 2
    assert says in one_line(err)
    assert not (tmp_path / "run").exists()


def test_without_dask_it_says_what_to_install(
    lsr: Lsr, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, _, err = lsr("cohort", tmp_path / "run", scans)
    assert status == 2
    assert "install latent-space-restoration[cohort], or give --jobs 0" in one_line(err)


def test_a_machine_gets_as_many_workers_as_it_has_room_for() -> None:
    size = cluster.size
    assert size(8, 64 * GB) == cluster.Size(8, 1, 8 * GB)
    assert size(8, 7 * GB) == cluster.Size(3, 2, 7 * GB // 3)
    assert size(2, 1 * GB).workers == 1
    assert size(16, 64 * GB, ("0", "1")) == cluster.Size(2, 8, 32 * GB, ("0", "1"))
    assert size(16, 64 * GB, ("3", "5"), 4).gpus == ("3", "5", "3", "5")
    assert size(4, 64 * GB, (), 9) == cluster.Size(9, 1, 64 * GB // 9)
