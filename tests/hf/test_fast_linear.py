"""Oracle: the layers' own forward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truthkit.hf import fast_linear as module
from truthkit.hf.fast_linear import MAX_ROWS, fast_linear


@pytest.fixture
def layers() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "divisible": nn.Linear(320, 256, bias=False),
            "with_bias": nn.Linear(320, 256),
            "odd": nn.Linear(320, 257),
            "small": nn.Linear(8, 8),
            "in_bfloat16": nn.Linear(320, 256).bfloat16(),
            "in_float64": nn.Linear(320, 256).double(),
        }
    )


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 1), (1, 4), (5, 1), (2, 4), (3, 3), (2, 8), (17, 1)])
def test_same_product_in_every_layout(layers: nn.ModuleDict, shape: tuple[int, int]) -> None:
    for name, layer in layers.items():
        x = torch.randn(*shape, layer.in_features, dtype=layer.weight.dtype)
        with torch.no_grad():
            expected = layer(x)
            for layout in module._candidates(shape[0] * shape[1], layer.out_features):
                if layer.weight.dtype == torch.float32 and x[..., 0].numel() <= MAX_ROWS:
                    rows = module._LAYOUTS[layout](x.flatten(0, 1), layer.weight)
                    assert rows.is_contiguous()
                    with_bias = rows if layer.bias is None else rows + layer.bias
                    torch.testing.assert_close(with_bias.view_as(expected), expected, atol=1e-5, rtol=1e-5)
            with fast_linear(layers):
                torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5, msg=name)


def test_only_large_float32_layers_change_and_all_come_back(layers: nn.ModuleDict) -> None:
    with fast_linear(layers):
        changed = {name for name, layer in layers.items() if "forward" in layer.__dict__}
        with fast_linear(layers):  # nested: nothing is left to change
            pass
        assert {name for name, layer in layers.items() if "forward" in layer.__dict__} == changed
    assert changed == {"divisible", "with_bias", "odd"}
    assert not any("forward" in layer.__dict__ for layer in layers.values())


def test_layers_come_back_after_an_exception(layers: nn.ModuleDict) -> None:
    with pytest.raises(KeyboardInterrupt), fast_linear(layers):
        raise KeyboardInterrupt
    assert not any("forward" in layer.__dict__ for layer in layers.values())


def test_gradients_take_the_ordinary_path(layers: nn.ModuleDict) -> None:
    x = torch.randn(1, 320, requires_grad=True)
    with fast_linear(layers):
        layers["with_bias"](x).sum().backward()
    torch.testing.assert_close(x.grad[0], layers["with_bias"].weight.sum(dim=0))


def test_the_choice_is_kept(layers: nn.ModuleDict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_chosen", {})
    counted = []
    monkeypatch.setattr(module, "_fastest", lambda rows, weights: counted.append(rows) or "plain")
    with torch.no_grad(), fast_linear(layers):
        for rows in (2, 2, 9, 12, MAX_ROWS, MAX_ROWS + 1):  # 9 rows run as 12 do
            layers["divisible"](torch.randn(rows, 320))
            layers["with_bias"](torch.randn(rows, 320))  # the same shape: one choice serves both
    assert counted == [2, 12, MAX_ROWS]
