"""Training: a loop that goes on where it stopped, and the networks that it trains."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.networks.vqvae import VQVAE
from LatentSpaceRestorationLib.preprocessing import CLIP
from LatentSpaceRestorationLib.training import loop
from LatentSpaceRestorationLib.training.augmentation import Augmentation
from LatentSpaceRestorationLib.training.loop import Schedule, generator_of, order_of, train
from LatentSpaceRestorationLib.training.prior import Codes, code_nll, encode_slices, train_prior
from LatentSpaceRestorationLib.training.slices import Slices, to_uint8
from LatentSpaceRestorationLib.training.vqvae import (
    from_uint8,
    reconstruction_error,
    train_vqvae,
)
from tiny_model import PRIOR_SETTINGS, VQVAE_SETTINGS
from torch import Tensor, nn

VQVAE_SIZE = {**VQVAE_SETTINGS, "codes": 8, "code_dim": 4}
PRIOR_SIZE = {**PRIOR_SETTINGS, "codes": 8, "shape": [4, 3]}


def silent(_: str) -> None:
    """Takes a line of text."""


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
