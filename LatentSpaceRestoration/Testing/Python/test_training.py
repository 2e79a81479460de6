"""Training on a lab's own scans: tables, prepared slices, augmentation, and a loop that goes on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_scan
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.networks.vqvae import VQVAE
from LatentSpaceRestorationLib.preprocessing import CLIP, Grid, mask_to_head, prepare, to_head
from LatentSpaceRestorationLib.training import loop
from LatentSpaceRestorationLib.training.augmentation import Augmentation, augment
from LatentSpaceRestorationLib.training.loop import Schedule, generator_of, order_of, train
from LatentSpaceRestorationLib.training.prior import Codes, code_nll, encode_slices, train_prior
from LatentSpaceRestorationLib.training.slices import Slices, prepare_slices, to_uint8
from LatentSpaceRestorationLib.training.subjects import Subject, of_split, read_subjects
from LatentSpaceRestorationLib.training.vqvae import (
    from_uint8,
    reconstruction_error,
    train_vqvae,
)
from tiny_model import generated_brain
from torch import Tensor, nn

VQVAE_SIZE = {
    "codes": 8,
    "channels": [4, 8, 8],
    "code_dim": 4,
    "encoder_blocks": 1,
    "decoder_blocks": 1,
}
PRIOR_SIZE = {
    "codes": 8,
    "shape": [4, 3],
    "channels": 8,
    "blocks": 1,
    "pairs": 1,
    "attention_stride": 1,
    "key_size": 4,
    "value_size": 8,
}


def silent(_: str) -> None:
    """Takes a line of text."""


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


# Order, rates, checkpoints


@pytest.mark.parametrize(("length", "batch"), [(24, 6), (7, 1), (5, 5)])
def test_every_item_comes_once_an_epoch_in_a_new_order(length: int, batch: int) -> None:
    per_epoch = length // batch
    epochs = [
        torch.cat([order_of(length, batch, e * per_epoch + s, 3) for s in range(per_epoch)])
        for e in range(3)
    ]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(length))
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()
    other_seed = torch.cat([order_of(length, batch, s, 4) for s in range(per_epoch)])
    assert other_seed.tolist() != epochs[0].tolist()


def test_no_item_comes_twice_in_an_epoch_that_does_not_divide() -> None:
    seen = torch.cat([order_of(11, 4, s, 0) for s in range(2)]).tolist()
    assert len(set(seen)) == 8
    everything = {int(i) for s in range(40) for i in order_of(11, 4, s, 0)}
    assert everything == set(range(11))
    assert len(order_of(3, 8, 5, 0)) == 3  # fewer items than a batch


def test_the_learning_rate_warms_up_and_decays() -> None:
    schedule = Schedule(200, learning_rate=1.0, warmup=10)
    rates = [schedule.rate(step) for step in range(200)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(b <= a for a, b in itertools.pairwise(rates[10:]))
    assert 0.02 <= rates[-1] < 0.03


def test_randomness_depends_on_seed_and_step() -> None:
    def draw(seed: int, step: int) -> float:
        return float(torch.rand((), generator=generator_of(seed, step)))

    assert draw(1, 2) == draw(1, 2)
    assert len({draw(seed, step) for seed in range(3) for step in range(5)}) == 15


def tiny_slices(count: int, seed: int) -> Slices:
    """(count, 16, 12) blobs in a background."""
    generator = np.random.default_rng(seed)
    values = generator.normal(0.0, 1.0, (count, 16, 12)).clip(-CLIP, CLIP)
    values[:, :3] = values[:, -3:] = -CLIP
    position = generator.uniform(-0.5, 0.5, count).astype(np.float32)
    return Slices(to_uint8(values), position, np.zeros(count, np.int64), ["S"])


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int | None) -> float:
    """Minutes in which the loop takes so many steps, on a clock that ticks when it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(ticks)))
    return float("inf") if steps is None else 2.0 * steps / 60.0


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    """Whether every weight and buffer is the same, bit for bit."""
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_resumed_training_gives_the_same_weights_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, held_out = tiny_slices(12, 0), tiny_slices(4, 1)
    schedule = Schedule(6, batch=4, warmup=2, bf16=False, checkpoint_minutes=1e9)
    size = {**VQVAE_SIZE, "dropout": 0.2}

    def run(name: str, steps: int | None) -> VQVAE:
        return train_vqvae(
            size,
            data,
            held_out,
            schedule,
            tmp_path / name,
            codebook_start=2,
            minutes=stop_after(monkeypatch, steps),
            report=lines.append,
        )

    lines: list[str] = []
    whole = run("whole.pt", None)
    half = run("parts.pt", 3)
    assert torch.load(tmp_path / "parts.pt", weights_only=True)["step"] == 3
    assert not same_weights(whole, half)
    resumed = run("parts.pt", None)
    assert lines == ["resumed at step 3"]
    assert same_weights(whole, resumed)
    assert not resumed.training
    assert resumed.codebook.started
    states = [torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("whole", "parts")]
    assert states[0]["step"] == states[1]["step"] == 6
    for key, value in states[0]["network"].items():
        assert torch.equal(value, states[1]["network"][key]), key


def to_zero(model: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
    """Loss of a linear layer that should give 0."""
    value = model(torch.randn(8, 3, generator=generator)).square().mean()
    return value, {"loss": float(value.detach())}


def linear() -> nn.Linear:
    """The same layer each time."""
    torch.manual_seed(0)
    return nn.Linear(3, 2)


PLAIN = Schedule(60, learning_rate=0.05, warmup=1, bf16=False)


def test_training_lowers_the_loss_and_reports_it(tmp_path: Path) -> None:
    lines: list[str] = []
    network = linear()
    before = to_zero(network, 0, generator_of(0, 0))[1]["loss"]
    averaged = train(
        network,
        to_zero,
        PLAIN,
        tmp_path / "a" / "b.pt",
        validate=lambda model: {"weight": float(next(model.parameters()).detach().abs().mean())},
        validate_every=20,
        report=lines.append,
    )
    assert to_zero(averaged, 0, generator_of(0, 0))[1]["loss"] < 0.2 * before
    assert not averaged.training
    assert sum("held out: weight" in line for line in lines) == 3
    assert any(line.startswith("step 50/60") and "loss" in line for line in lines)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.pt"]


def test_figures_are_means_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(model: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        return to_zero(model, step, generator)[0], {"five": 5.0}

    lines: list[str] = []
    minutes = stop_after(monkeypatch, 30)
    train(linear(), constant, PLAIN, tmp_path / "c.pt", minutes=minutes, report=lines.append)
    train(linear(), constant, PLAIN, tmp_path / "c.pt", report=lines.append)
    assert any("five 5.0000" in line for line in lines)


def test_an_interrupted_training_keeps_its_steps(tmp_path: Path) -> None:
    def interrupted(model: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        if step == 4:
            raise KeyboardInterrupt
        return to_zero(model, step, generator)

    file = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        train(linear(), interrupted, PLAIN, file, report=silent)
    assert torch.load(file, weights_only=True)["step"] == 4
    resumed = train(linear(), to_zero, PLAIN, file, report=silent)
    whole = train(linear(), to_zero, PLAIN, tmp_path / "w.pt", report=silent)
    assert same_weights(resumed, whole)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.pt"
    train(linear(), to_zero, Schedule(2, bf16=False), file, report=silent)

    def disk_full(_: object, path: Path) -> None:
        path.write_bytes(b"half a checkpoint")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="no space"):
        train(linear(), to_zero, Schedule(4, bf16=False), file, report=silent)
    assert torch.load(file, weights_only=True)["step"] == 2


def test_a_step_without_a_finite_gradient_is_left_out(tmp_path: Path) -> None:
    def sometimes_nan(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict]:
        value, figures = to_zero(model, step, generator)
        return value * (float("nan") if step == 1 else 1.0), figures

    averaged = train(linear(), sometimes_nan, Schedule(4, bf16=False), tmp_path / "c.pt")
    assert all(bool(p.isfinite().all()) for p in averaged.parameters())


# The networks' own trainings


def test_a_trained_vqvae_reconstructs_better_and_uses_its_keys(tmp_path: Path) -> None:
    ramps = np.linspace(-1.0, 1.0, 12)[None, None] * np.linspace(0.5, 2.0, 40)[:, None, None]
    values = np.broadcast_to(ramps, (40, 16, 12)).copy()
    values[:, :2] = -CLIP
    data = Slices(to_uint8(values), np.zeros(40, np.float32), np.zeros(40, np.int64), ["S"])
    schedule = Schedule(60, batch=8, learning_rate=1e-2, warmup=5, average=0.9, bf16=False)
    nothing = Augmentation(*[0.0] * 10)
    torch.manual_seed(0)
    untrained = reconstruction_error(VQVAE(**VQVAE_SIZE).eval(), data)
    network = train_vqvae(
        {**VQVAE_SIZE, "dropout": 0.0},
        data,
        data,
        schedule,
        tmp_path / "v.pt",
        nothing,
        codebook_start=20,
        report=silent,
    )
    trained = reconstruction_error(network, data)
    assert trained["l1_brain"] < 0.6 * untrained["l1_brain"]
    assert trained["perplexity"] > 2.0


def test_codes_for_the_prior_are_those_of_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VQVAE(**VQVAE_SIZE).eval()
    data = tiny_slices(5, 0)
    plain = encode_slices(network, data, 0, batch=2, report=silent)
    with torch.inference_mode():
        expected = network.encode(
            from_uint8(torch.from_numpy(data.values)), torch.from_numpy(data.position)
        )
    np.testing.assert_array_equal(plain.values, expected)
    assert plain.values.dtype == np.uint8
    copies = encode_slices(network, data, 3, batch=2, report=silent)
    assert copies.values.shape == (15, 4, 3)
    np.testing.assert_array_equal(copies.position, np.tile(data.position, 3))
    again = encode_slices(network, data, 3, batch=2, report=silent)
    np.testing.assert_array_equal(copies.values, again.values)
    plain.save(tmp_path / "codes.npz")
    back = Codes.load(tmp_path / "codes.npz")
    np.testing.assert_array_equal(back.values, plain.values)
    np.testing.assert_array_equal(back.position, plain.position)


def test_a_trained_prior_finds_the_codes_it_saw_likely(tmp_path: Path) -> None:
    grid = (np.arange(12).reshape(4, 3) % 8).astype(np.uint8)
    codes = Codes(np.repeat(grid[None], 12, 0), np.linspace(-0.5, 0.5, 12, dtype=np.float32))
    torch.manual_seed(0)
    untrained = code_nll(PixelSNAIL(**PRIOR_SIZE).eval(), codes)["nll"]
    schedule = Schedule(40, batch=6, learning_rate=1e-2, warmup=5, average=0.9, bf16=False)
    network = train_prior(
        PRIOR_SIZE, codes, codes, schedule, tmp_path / "p.pt", code_dropout=0.1, report=silent
    )
    assert untrained == pytest.approx(np.log(8), abs=1.0)
    assert code_nll(network, codes)["nll"] < 0.5 * untrained
