"""Oracle: the layers' own forward."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize("layout", sorted(module._LAYOUTS))
def test_a_trace_has_the_layout_in_its_graph(
    layers: nn.ModuleDict, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured while the trace is made, on real tensors; the next block compiles nothing."""
    graphs: list[torch.fx.GraphModule] = []
    measured = []

    def fastest(rows: int, weights: list[torch.Tensor]) -> str:
        measured.append((rows, *weights[0].shape, float(weights[0].sum())))
        return layout

    def backend(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(module, "_chosen", {})
    monkeypatch.setattr(module, "_fastest", fastest)
    x = torch.randn(3, 1, 320)
    traced = torch.compile(lambda: (layers["odd"](x), layers["with_bias"](x)), backend=backend, fullgraph=True)
    with torch.no_grad():
        expected = layers["odd"](x), layers["with_bias"](x)
        for _ in range(3):
            with fast_linear(layers):
                torch.testing.assert_close(traced(), expected, atol=1e-5, rtol=1e-5)
    (graph,) = graphs
    assert len(measured) == 2  # one for each shape
    called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert called.count(torch.bmm) == 2 * ("blocks" in layout)
    assert called.count(torch.mm) == 2 * (layout == "columns")
    assert [one.__name__ for one in called].count("pad") == 2 * ("padded" in layout)


def test_an_unknown_number_of_rows_is_traced_between_two_measured_ones(
    layers: nn.ModuleDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []
    torch.compiler.reset()
    monkeypatch.setattr(module, "_chosen", {})
    monkeypatch.setattr(module, "_fastest", lambda rows, weights: "rows by blocks of 64")
    layer = layers["with_bias"]
    backend = lambda graph, _inputs: graphs.append(graph) or graph.forward  # noqa: E731
    traced = torch.compile(lambda x: layer(x), backend=backend, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for rows in (9, 10, 12, 13, 16, 17, 40, 11):
            x = torch.randn(rows, 320)
            expected = layer(x)
            with fast_linear(layers):
                torch.testing.assert_close(traced(x), expected, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 3  # up to 12, up to 16, and above


def test_a_layer_that_was_given_another_weight(layers: nn.ModuleDict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_chosen", {})
    with torch.no_grad(), fast_linear(layers):
        layers["with_bias"].weight = nn.Parameter(torch.randn(128, 640))
        layers["with_bias"].bias = None
        x = torch.randn(2, 640)
        torch.testing.assert_close(layers["with_bias"](x), x @ layers["with_bias"].weight.T, atol=1e-4, rtol=1e-5)
