"""``lsr evaluate`` with a tiny random model on generated scans: what it writes, when it stops."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Lsr, one_line, save_scan
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.detector import Detector
from tiny_model import generated_brain

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

FAMILIES = ("pii", "bias-field")


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three healthy scans of split tune, and one to train on."""
    folder = tmp_path_factory.mktemp("healthy")
    lines = ["subject\tsplit\tt1w\tbrainmask"]
    for number in range(4):
        brain = generated_brain((44, 52, 14), seed=number)
        save_scan(folder / f"H{number}.nii.gz", brain.array, brain.affine)
        inside = (brain.array > 0).astype(np.uint8)
        save_scan(folder / f"H{number}_mask.nii.gz", inside, brain.affine)
        split = "tune" if number < 3 else "train"
        lines.append(f"H{number}\t{split}\tH{number}.nii.gz\tH{number}_mask.nii.gz")
    (folder / "subjects.tsv").write_text("\n".join(lines) + "\n")
    return folder / "subjects.tsv"


@pytest.fixture
def evaluate(lsr: Lsr, tiny_model: Path, subjects: Path, tmp_path: Path) -> Lsr:
    """``lsr evaluate`` of the tiny model with one restoration and few replicates."""

    def run(*arguments: object, source: Path = subjects) -> tuple[int, str, str]:
        options = ["-o", tmp_path / "out", "--restorations", 1, "--replicates", 20]
        models = [] if "--model" in arguments else ["--model", tiny_model]
        return lsr("evaluate", source, *options, *models, "--device", "cpu", *arguments)

    return run


def of_families(*names: str) -> list[str]:
    return [word for name in names for word in ("--family", name)]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the methods of each detection that is made."""
    made: list[str] = []
    detect = Detector.detect

    def counted(self: Detector, volume, options):
        made.append(options.method)
        return detect(self, volume, options)

    monkeypatch.setattr(Detector, "detect", counted)
    return made


def test_an_evaluation_writes_tables_curves_and_a_page_and_goes_on_where_it_was(
    evaluate: Lsr, tmp_path: Path, looked_at: list[str]
) -> None:
    folder = tmp_path / "out"
    status, out, err = evaluate("--method", "lsr", *of_families(*FAMILIES))
    assert status == 0, err
    assert len(looked_at) == 3 * (1 + len(FAMILIES))
    assert "9 of 9" in err
    names = {path.name for path in folder.iterdir()}
    tables = {"table.md", "table.csv", "figures.json"}
    assert names == {*tables, "roc.png", "pr.png", "page.html", "cases"}
    assert out.startswith((folder / "table.md").read_text(encoding="utf-8"))
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert len(figures["cases"]) == 9
    assert figures["methods"][0]["method"] == "lsr"
    with (folder / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    whole = {row["family"]: row for row in rows if not row["size"] and not row["contrast"]}
    assert set(whole) == {*FAMILIES, "untouched"}
    patch = whole["pii"]
    low, value, high = (float(patch[f"pooled_ap{end}"]) for end in ("_low", "", "_high"))
    assert 0.0 <= low <= value <= high <= 1.0
    assert whole["bias-field"]["pooled_ap"] == ""
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "://" not in page
    # Three examples of each family and of the untouched, each of one strip of panes.
    assert page.count("data:image/webp;base64,") == 3 * (1 + len(FAMILIES))

    # A second method needs its own detections only; a result that is cut short is made again.
    looked_at.clear()
    kept = sorted((folder / "cases" / "lsr").glob("*.npz"))
    assert len(kept) == 9
    kept[3].write_bytes(kept[3].read_bytes()[:100])
    status, again, err = evaluate(
        "--method", "lsr", "--method", "lsr-paper", *of_families(*FAMILIES)
    )
    assert status == 0, err
    assert len(looked_at) == 1 + 9
    assert "lsr-paper" in again
    looked_at.clear()
    status, same, err = evaluate("--method", "lsr", *of_families(*FAMILIES))
    assert (status, looked_at, same) == (0, [], out)


def test_an_evaluation_that_is_interrupted_keeps_what_it_has(
    evaluate: Lsr, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--method", "lsr", *of_families("uniform-sphere"))
    counted = Detector.detect

    def interrupted(self: Detector, volume, given):
        if len(looked_at) == 2:
            raise KeyboardInterrupt
        return counted(self, volume, given)

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "detect", interrupted)
        status, out, err = evaluate(*options)
    assert status == 130
    assert out == ""
    assert err.endswith("lsr: error: cancelled\n")
    status, _, err = evaluate(*options)
    assert status == 0, err
    assert len(looked_at) == 6


def test_a_scan_that_cannot_be_used_is_left_out_and_said(
    evaluate: Lsr, subjects: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scans"
    shutil.copytree(subjects.parent, folder)
    (folder / "H1.nii.gz").write_bytes(b"no image")
    status, out, err = evaluate(
        "--method", "lsr", *of_families("uniform-sphere"), source=folder / "subjects.tsv"
    )
    assert status == 3
    assert err.count("H1.nii.gz") == 1
    assert "left out" in err
    assert "2 healthy subjects" in out


def test_real_lesions_and_lesion_shapes(
    evaluate: Lsr, tmp_path: Path, looked_at: list[str]
) -> None:
    folder = tmp_path / "lesions"
    folder.mkdir()
    brain = generated_brain((44, 52, 14), seed=9)
    label = np.zeros(brain.shape, np.uint8)
    label[20:24, 25:29, 5:9] = 1
    save_scan(folder / "P1_T1w.nii.gz", brain.array * (1.0 - 0.7 * label), brain.affine)
    save_scan(folder / "P1_lesion.nii.gz", label, brain.affine)
    options = ("--method", "lsr", *of_families("stroke-shape"))
    status, out, err = evaluate(*options, "--lesions", folder)
    assert status == 0, err
    assert "stroke-shape is left out" in err
    assert len(looked_at) == 3 + 1
    assert "real lesions" in out
    shapes = tmp_path / "shapes"
    shapes.mkdir()
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-40.0, -30.0, 0.0]
    save_scan(shapes / "one.nii.gz", np.pad(np.ones((20, 20, 20), np.uint8), 2), affine)
    (shapes / "shapes.tsv").write_text("name\tvolume_ml\none\t8.0\n")
    status, out, err = evaluate(*options, "--shapes", shapes)
    assert status == 0, err
    assert "stroke-shape" in out
    assert one_line(evaluate("--shapes", folder)[2]).startswith("lsr: error: ")
    assert evaluate("--lesions", shapes)[0] == 3


def test_several_sites_are_told_of_one_by_one(
    lsr: Lsr, tiny_model: Path, subjects: Path, tmp_path: Path
) -> None:
    """The second table's scans are another site's: of the split that is asked for beside tune."""
    other = tmp_path / "others"
    shutil.copytree(subjects.parent, other)
    text = (other / "subjects.tsv").read_text().replace("tune", "unseen-site")
    (other / "subjects.tsv").write_text(text.replace("\nH", "\nX"))
    options = ["-o", tmp_path / "out", "--restorations", 1, "--replicates", 9, "--method", "lsr"]
    options += ["--model", tiny_model, "--device", "cpu", *of_families("uniform-sphere")]
    options += ["--split", "tune", "--split", "unseen-site", "--subjects", 2]
    status, out, err = lsr("evaluate", subjects, other / "subjects.tsv", *options)
    assert status == 0, err
    assert "4 healthy subjects of split tune and unseen-site" in out
    names = [line.split(" | ")[1] for line in out.splitlines() if line.startswith("| lsr |")]
    assert names == [subjects.parent.name, "others"]
    with (tmp_path / "out" / "table.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["site"]]
    assert {(row["site"], row["family"]) for row in rows} == {
        (site, family) for site in names for family in ("untouched", "mean of families")
    }
    # Both have spheres of the same sizes.
    cases = json.loads((tmp_path / "out" / "figures.json").read_text())["cases"]
    sizes = {c["subject"]: c["size"] for c in cases if c["size"]}
    assert sizes["H0"] == sizes["X0"]


def test_figures_go_into_the_card(evaluate: Lsr, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "models" / "tiny"
    shutil.copytree(tiny_model, model)
    status, _, err = evaluate(
        "--model", model, "--method", "lsr", *of_families("uniform-sphere", "sink"), "--into-card"
    )
    assert status == 0, err
    bundle = read_bundle(model)
    figures = bundle.config["metrics"]["default"]
    assert figures["scans"] == 9
    assert {"pooled_ap", "sample_auroc", "healthy_flagged", "pooled_ap of sink"} <= set(figures)
    assert f"{figures['pooled_ap']:.3f}" in bundle.card()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--family", "tumour"], 2, "uniform-sphere"),
        (["--family", "reflection"], 2, "--held-out"),
        (["--sizes", "8"], 2, "--family"),
        (["--method", "vae"], 2, "no model given can do vae; choose from: "),
        (["--compare", "paper"], 2, "--model"),
        (["--compare", "beta"], 2, "--model"),
        (["--split", "test"], 3, "give --split, of: train, tune"),
        (["--shapes", "nowhere"], 3, "shapes.tsv"),
        (["--model", "nothing"], 2, "there is no model nothing"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_before_any_work(
    evaluate: Lsr, looked_at: list[str], arguments: list[str], status: int, words: str
) -> None:
    found, out, err = evaluate(*arguments)
    assert (found, out) == (status, "")
    assert words in one_line(err)
    assert looked_at == []


def test_subjects_that_the_model_was_trained_on_are_refused(
    evaluate: Lsr, tiny_model: Path, tmp_path: Path
) -> None:
    whole = read_bundle(tiny_model)
    config = {key: value for key, value in whole.config.items() if key != "files"}
    config["training"] = {"data": "generated", "subjects": ["H1", "H7"]}
    files = [file for file in whole.config["files"] if file.endswith(".safetensors")]
    tensors = {file: whole.tensors(file) for file in files}
    model = write_bundle(tmp_path / "own" / "tiny", config, tensors, whole.calibration, "card")
    status, _, err = evaluate("--model", model.folder)
    assert status == 3
    assert "H1" in one_line(err)
    assert "trained" in err
