"""Slices to codes and back, and a codebook that stays in use."""

from __future__ import annotations

import pytest
import torch
from LatentSpaceRestorationLib.model_space import CLIP
from LatentSpaceRestorationLib.networks.vqvae import VQVAE, Codebook


def tiny(**settings: object) -> VQVAE:
    """An untrained network whose codes vary."""
    torch.manual_seed(0)
    sizes = {"codes": 16, "channels": [4, 8, 8], "code_dim": 6, "encoder_blocks": 1}
    network = VQVAE(**{**sizes, "decoder_blocks": 1, **settings})
    x, position = slices(64), torch.linspace(-0.5, 0.5, 64)
    with torch.no_grad():
        for _ in range(30):  # running means of the normalisation
            network.encoder(x, position)
    network.eval()
    with torch.no_grad():
        latents = network.encoder(x, position).permute(0, 2, 3, 1).flatten(0, 2)
    network.codebook.start(latents, torch.Generator().manual_seed(0))
    return network


def slices(count: int, rows: int = 16, columns: int = 12, seed: int = 0) -> torch.Tensor:
    """(count, 1, rows, columns) noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, rows, columns, generator=generator).clamp(-CLIP, CLIP)


PUBLISHED = [((16, 32, 64, 256), (20, 20)), ((16, 32, 64, 128, 256), (10, 10))]


@pytest.mark.parametrize(("channels", "grid"), PUBLISHED, ids=["brain", "abdomen"])
def test_the_published_sizes_build_and_run(
    channels: tuple[int, ...], grid: tuple[int, int]
) -> None:
    network = VQVAE(128, channels, encoder_blocks=2, decoder_blocks=2).eval()
    assert network.codebook.keys.shape == (128, 256)
    x, position = slices(1, 160, 160), torch.tensor([0.2])
    with torch.inference_mode():
        codes = network.encode(x, position)
        image = network.decode(codes, position)
    assert codes.shape == (1, *grid)
    assert codes.dtype == torch.int64
    assert int(codes.max()) < 128
    assert image.shape == x.shape


def test_the_shipped_size_has_a_code_for_8_mm() -> None:
    network = VQVAE(128, [4, 4, 4], code_dim=8, encoder_blocks=1, decoder_blocks=1).eval()
    with torch.inference_mode():
        codes = network.encode(slices(2, 104, 80), torch.zeros(2))
        assert codes.shape == (2, 26, 20)
        assert network.decode(codes, torch.zeros(2)).shape == (2, 1, 104, 80)


def test_codes_do_not_depend_on_their_batch() -> None:
    network = tiny()
    x, position = slices(9, seed=3), torch.linspace(-0.4, 0.4, 9)
    with torch.inference_mode():
        together = network.encode(x, position)
        images = network.decode(together, position)
        assert len(together.unique()) > 4
        for i in range(9):
            alone = network.encode(x[i : i + 1], position[i : i + 1])
            assert torch.equal(alone[0], together[i])
            image = network.decode(alone, position[i : i + 1])
            torch.testing.assert_close(image[0], images[i], atol=1e-5, rtol=1e-4)


def test_the_position_matters() -> None:
    x = slices(4)
    low, high = torch.full((4,), -0.5), torch.full((4,), 0.5)
    network = tiny()
    with torch.inference_mode():
        assert not torch.allclose(network.encoder(x, low), network.encoder(x, high))
        codes = network.encode(x, low)
        assert not torch.allclose(network.decode(codes, low), network.decode(codes, high))


def test_an_encoder_without_position_gives_a_structure_the_same_codes_anywhere() -> None:
    x = slices(4)
    low, high = torch.full((4,), -0.5), torch.full((4,), 0.5)
    network = tiny(encoder_position=False)
    with torch.inference_mode():
        assert torch.equal(network.encode(x, low), network.encode(x, high))
        codes = network.encode(x, low)
        assert not torch.allclose(network.decode(codes, low), network.decode(codes, high))
        background = network.encode(torch.full((1, 1, 80, 80), -CLIP), low[:1])
    away_from_the_border = background[:, 6:-6, 6:-6]
    assert len(away_from_the_border.unique()) == 1


def test_the_codebook_starts_at_the_centres_of_the_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 3, generator=generator) * 10.0
    member = torch.arange(5).repeat_interleave(40)
    latents = centres[member] + 0.1 * torch.randn(200, 3, generator=generator)
    book = Codebook(8, 3)
    assert not book.started
    book.start(latents, generator)
    assert book.started
    distance = torch.cdist(centres, book.keys).min(dim=1).values
    assert float(distance.max()) < 0.5
    found = book.nearest(latents)
    assert float((book.keys[found] - latents).norm(dim=1).max()) < 1.0


def test_the_nearest_key_is_the_nearest() -> None:
    torch.manual_seed(0)
    book = Codebook(16, 6)
    latents = torch.randn(3, 4, 5, 6)
    expected = torch.cdist(latents.reshape(-1, 6), book.keys).argmin(dim=1).reshape(3, 4, 5)
    assert torch.equal(book.nearest(latents), expected)


def test_autocast_does_not_confuse_keys_that_lie_near_each_other() -> None:
    book = Codebook(2, 4)
    book.keys.copy_(torch.tensor([[10.0, 10.0, 10.0, 10.0], [10.01, 10.0, 10.0, 10.0]]))
    latents = torch.stack([book.keys[1], book.keys[0]]).repeat(20, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = book.nearest(latents)
    assert found.tolist() == [1, 0] * 20


def test_an_update_moves_keys_towards_their_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    book = Codebook(2, 2, decay=0.9)
    book.start(torch.tensor([[0.0, 0.0], [10.0, 10.0]]), generator, iterations=0)
    book.keys.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0]]))
    book.sum.copy_(book.keys * book.count[:, None])
    latents = torch.tensor([[1.0, 0.0], [10.0, 12.0]])
    before = (book.keys - latents).norm(dim=1)
    for _ in range(3):
        index = book.nearest(latents)
        assert index.tolist() == [0, 1]
        book.update(latents, index, generator)
        after = (book.keys - latents).norm(dim=1)
        assert (after < before).all()
        before = after
    # The published decay: one update moves a key a tenth of the way, three 27 %.
    torch.testing.assert_close(book.keys[0], torch.tensor([1.0 - 0.9**3, 0.0]))


def test_a_key_that_nobody_uses_is_moved_onto_a_latent() -> None:
    generator = torch.Generator().manual_seed(0)
    book = Codebook(4, 2, decay=0.5)
    book.start(torch.randn(40, 2, generator=generator), generator)
    book.keys[3] = 1e3
    book.sum[3] = book.keys[3] * book.count[3]
    for _ in range(8):
        latents = torch.randn(40, 2, generator=generator)
        book.update(latents, book.nearest(latents), generator)
    assert float(book.keys.abs().max()) < 10.0
    use = torch.bincount(book.nearest(torch.randn(400, 2, generator=generator)), minlength=4)
    assert (use > 0).all()


def test_a_training_pass_moves_the_codebook_and_gives_gradients_to_all_parts() -> None:
    network = tiny(dropout=0.0).train()
    generator = torch.Generator().manual_seed(0)
    keys = network.codebook.keys.clone()
    out = network(slices(8), torch.zeros(8), generator)
    assert out.reconstruction.shape == (8, 1, 16, 12)
    assert out.codes.shape == (8, 4, 3)
    assert 1.0 <= out.perplexity <= 16.0
    assert not torch.equal(network.codebook.keys, keys)
    (out.reconstruction.abs().mean() + out.commitment).backward()
    first = network.encoder.layers[0].weight.grad
    assert first is not None
    assert float(first.abs().sum()) > 0.0  # straight through the codebook


def test_evaluation_leaves_the_codebook_as_it_is() -> None:
    network = tiny()
    keys = network.codebook.keys.clone()
    with torch.inference_mode():
        network(slices(8), torch.zeros(8), torch.Generator())
    assert torch.equal(network.codebook.keys, keys)


def test_until_the_codebook_starts_it_is_a_plain_autoencoder() -> None:
    torch.manual_seed(0)
    network = VQVAE(16, [4, 8, 8], 6, 1, 1).train()
    out = network(slices(4), torch.zeros(4), torch.Generator().manual_seed(0))
    assert not network.codebook.started
    assert out.perplexity == 0.0
    assert out.reconstruction.shape == (4, 1, 16, 12)


def test_perplexity_counts_the_keys_in_use() -> None:
    network = tiny()
    with torch.inference_mode():
        many = network(slices(16), torch.zeros(16), torch.Generator())
        network.codebook.keys[1:] += 100.0  # far from every latent
        one = network(slices(16), torch.zeros(16), torch.Generator())
    assert many.perplexity > 2.0
    assert one.perplexity == pytest.approx(1.0, abs=1e-4)
