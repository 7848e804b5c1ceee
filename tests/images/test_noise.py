"""VCD's noise against the formula of its repository, written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from truthkit.errors import ArgumentError
from truthkit.images.noise import diffusion_noise, signal_and_noise


def published(pixels: Tensor, step: int) -> Tensor:
    """One image, from the global generator, as the authors' script draws it."""
    betas = torch.linspace(-6, 6, 1000).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
    products = (1 - betas).cumprod(dim=0)
    noise = torch.randn_like(pixels)
    return torch.sqrt(products)[step] * pixels + torch.sqrt(1 - products)[step] * noise


@pytest.mark.parametrize("step", [0, 1, 500, 999])
def test_the_published_noise_to_the_last_bit(step: int) -> None:
    pixels = torch.randn(3, 3, 28, 28)
    expected = []
    for row, seed in zip(pixels, (5, 0, 2**63 - 1), strict=True):
        torch.manual_seed(seed)
        expected.append(published(row, step))
    assert torch.equal(diffusion_noise(pixels, step=step, seeds=[5, 0, 2**63 - 1]), torch.stack(expected))


def test_the_schedule_in_float64() -> None:
    product = 1.0
    for step in range(1000):
        beta = 1 / (1 + math.exp(-(-6 + 12 * step / 999))) * (0.5e-2 - 1e-5) + 1e-5
        product *= 1 - beta
        if step % 111 == 0:
            signal, amount = signal_and_noise(step)
            assert signal == pytest.approx(math.sqrt(product), abs=1e-5)
            assert amount == pytest.approx(math.sqrt(1 - product), abs=1e-4)
    assert signal_and_noise(0)[1] == pytest.approx(0.005, abs=5e-4)
    assert signal_and_noise(500)[1] > 0.5


def test_mean_and_variance() -> None:
    signal, amount = signal_and_noise(500)
    found = diffusion_noise(torch.full((2, 3, 224, 224), 0.7), seeds=[1, 2])
    assert found.mean().item() == pytest.approx(0.7 * signal, abs=4 * amount / math.sqrt(found.numel()))
    assert found.var().item() == pytest.approx(amount**2, rel=0.01)
    noise = (found - 0.7 * signal) / amount
    assert abs((noise[0] * noise[1]).mean().item()) < 4 / math.sqrt(noise[0].numel())


def test_a_row_depends_on_its_own_seed_alone() -> None:
    pixels = torch.randn(4, 2, 3, 10, 10)
    before = pixels.clone()
    state = torch.get_rng_state()
    together = diffusion_noise(pixels, seeds=[7, 8, 7, 9])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pixels, before)
    for row, seed in enumerate([7, 8, 7, 9]):
        assert torch.equal(together[row], diffusion_noise(pixels[row : row + 1], seeds=[seed])[0])
    noise = together - signal_and_noise(500)[0] * pixels
    torch.testing.assert_close(noise[0], noise[2])
    assert not torch.allclose(noise[0], noise[1])
    strided = pixels.transpose(-1, -2)
    assert torch.equal(
        diffusion_noise(strided, seeds=[7, 8, 7, 9]), diffusion_noise(strided.contiguous(), seeds=[7, 8, 7, 9])
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    pixels = torch.randn(2, 3, 14, 14).to(dtype)
    found = diffusion_noise(pixels, seeds=[1, 2])
    assert found.dtype is dtype
    exact = diffusion_noise(pixels.float(), seeds=[1, 2])
    if dtype is torch.float64:
        torch.testing.assert_close(found.float(), exact)
    else:
        assert torch.equal(found, exact.to(dtype))


def test_packed_patches_and_no_rows() -> None:
    patches = torch.randn(16, 1176)
    assert diffusion_noise(patches[None], seeds=[3])[0].shape == patches.shape
    assert diffusion_noise(patches[:0], seeds=[]).shape == (0, 1176)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_noise_on_an_accelerator() -> None:
    pixels = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(
        diffusion_noise(pixels.cuda(), seeds=[1, 2]).cpu(), diffusion_noise(pixels, seeds=[1, 2]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("step", [-1, 1000, 1.0, "500", True])
def test_bad_steps(step: Any) -> None:
    with pytest.raises(ArgumentError, match=r"step is .*expected a whole number from 0 to 999, where 0 is"):
        diffusion_noise(torch.zeros(1, 3, 2, 2), step=step, seeds=[0])


def test_bad_rows_and_types() -> None:
    with pytest.raises(ArgumentError, match=r"there are 1 seeds for pixel_values of shape \(2, 3\)"):
        diffusion_noise(torch.zeros(2, 3), seeds=[0])
    with pytest.raises(ArgumentError, match="expected one per row"):
        diffusion_noise(torch.tensor(1.0), seeds=[0])
    with pytest.raises(ArgumentError, match=r"pixel_values are torch.uint8; expected the processor's floating-point"):
        diffusion_noise(torch.zeros(1, 3, dtype=torch.uint8), seeds=[0])
