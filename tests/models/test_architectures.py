"""The shipped architectures: folding changes nothing, whitening whitens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from certmix.models.architectures import ARCHITECTURES, DENOISER, ConvNet, build, fold_batch_norm
from certmix.sampling.ablation import random_ablation
from certmix.sampling.bands import bands


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("classes", [10, 100])
def test_logits_have_the_right_shape_and_denoised_images_theirs(name, classes):
    expected = (2, 3, 32, 32) if name == DENOISER else (2, classes)
    assert build(name, classes).eval()(images_for(name, 2)).shape == expected


def images_for(name: str, count: int) -> torch.Tensor:
    """Images as an architecture takes them: of a band that goes on at the left edge, as bands do."""
    images = torch.rand(count, 3, 32, 32)
    if name == "masked":
        return random_ablation(images, 75, torch.Generator().manual_seed(0))
    return bands(images, torch.arange(count) + 30, 4) if name == "band" else images


@pytest.mark.parametrize("name", ["band", "masked"])
def test_a_net_looks_at_nothing_but_what_is_shown(name):
    net = build(name).eval()
    given = images_for(name, 3)
    filled = given.clone()
    filled[:, :3][(given[:, 3:] == 0).expand(-1, 3, -1, -1)] = 7.0
    assert torch.equal(net(filled), net(given))


def test_a_net_of_bands_looks_at_where_they_are():
    net = build("band").eval()
    same, places = torch.ones(1, 3, 32, 32).expand(2, -1, -1, -1), torch.tensor([3, 4])
    one, other = net(bands(same, places, 4))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", ["residual", "masked", "band", DENOISER])
def test_folding_batch_norm_keeps_the_function(name):
    torch.manual_seed(0)
    model = build(name)
    nn.init.normal_(model.head.weight)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    model.eval()
    x = images_for(name, 4)
    with torch.no_grad():
        before = model(x)
        after = fold_batch_norm(model)(x)
        again = fold_batch_norm(model)(x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(again, after)


def test_whitening_decorrelates_patches():
    torch.manual_seed(0)
    model, images = ConvNet(), torch.rand(64, 3, 32, 32).cumsum(3).cumsum(2)
    images = images / images.max()
    model.whiten(images)
    with torch.no_grad():
        responses = model.whitening(model.normalize(images))[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    second = responses @ responses.T / responses.shape[1]
    off = second - torch.diag(second.diagonal())
    assert off.abs().max() < 1e-2
    assert second.diagonal().max() <= 1.0 + 1e-6
    assert not model.whitening.weight.requires_grad


def test_the_filter_of_a_denoiser_is_the_best_linear_estimate():
    """Of images of one colour each it averages, which the best share of a noisy pixel cannot."""
    torch.manual_seed(0)
    flat = torch.rand(400, 3, 1, 1).expand(-1, -1, 16, 16)
    denoiser, sigma, variance = build(DENOISER).eval(), 0.5, 1 / 12
    denoiser.fit_filter(flat, sigma, torch.Generator().manual_seed(0))
    with torch.no_grad():
        estimates = denoiser(flat + sigma * torch.randn(flat.shape))
    assert (estimates - flat).square().mean() < 0.4 * variance * sigma**2 / (variance + sigma**2)
