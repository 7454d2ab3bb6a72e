"""Compilation: one graph for each degree of anisotropy, and nothing falls back to eager mode."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo
import torch._dynamo.config
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, Unsupported
from torch._dynamo.utils import counters

from spadunet.network.compiling import MAX_NUM_GRAPHS, compile_network
from spadunet.network.spad_conv import SpadConv, SpadConvTranspose
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT

ALL_DA = range(7)


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # pytest 9 captures loggers that do not propagate; the compiler's trace would double the time.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", True)
    torch.manual_seed(0)
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()


def assert_graphs_and_no_break(num_graphs: int) -> None:
    """As many whole graphs as calls of a new kind, and nothing that the compiler gave up on."""
    assert counters["stats"]["unique_graphs"] == num_graphs
    assert counters["frames"]["total"] == counters["frames"]["ok"]
    assert not counters["graph_break"]
    assert not counters["unimplemented"]


class Scale(nn.Module):
    """The least network that takes `da`."""

    def forward(self, x: Tensor, da: int) -> Tensor:
        return x * 2**da


class Breaks(nn.Module):
    """Cannot be one graph: it prints a value."""

    def forward(self, x: Tensor, da: int) -> Tensor:
        print(x.sum().item())
        return x * da


class Layers(nn.Module):
    """Every kind of adaptive layer once, at level 1, each from the same input."""

    def __init__(self):
        super().__init__()
        self.downs = nn.ModuleList(
            SpadConv(3, 4, kernel=k, stride=s, level=1) for k, s in [(2, 2), (4, 4), (3, 1), (3, 2)]
        )
        self.ups = nn.ModuleList(
            SpadConvTranspose(3, 4, kernel=k, stride=s, level=1) for k, s in [(2, 2), (4, 4), (3, 2)]
        )

    def forward(self, x: Tensor, da: int) -> list[Tensor]:
        return [layer(x, da) for layer in [*self.downs, *self.ups]]


def random_crop(da: int) -> Tensor:
    return torch.randn(1, 3, max(16 >> da, 1), 16, 16)


def assert_equal_outputs(network: nn.Module, compiled: Callable, da: int) -> None:
    x = random_crop(da)
    with torch.no_grad():
        for a, b in zip(network(x, da), compiled(x, da), strict=True):
            assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def assert_equal_outputs_and_gradients(network: nn.Module, compiled: Callable, da: int) -> None:
    """In double precision: in single, rounding moves a value across LeakyReLU's kink now and then."""
    x = random_crop(da).double().requires_grad_()
    inputs = [x, *network.parameters()]
    results = []
    for forward in (network, compiled):
        outputs = forward(x, da)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        gradients = torch.autograd.grad(sum(y.square().mean() for y in outputs), inputs)
        results.append([*outputs, *gradients])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-10, rtol=1e-8)


@pytest.mark.slow
def test_every_da_becomes_one_graph_and_none_runs_in_eager_mode():
    network = SpadUNet([16, 24], [1, 1])
    compiled = compile_network(network, backend="aot_eager")
    for da in ALL_DA:
        assert_equal_outputs(network, compiled, da)
    assert_graphs_and_no_break(len(ALL_DA))
    assert_equal_outputs(network, compiled, 3)
    assert_graphs_and_no_break(len(ALL_DA))


def test_more_graphs_than_pytorch_allows_by_default_are_compiled():
    compiled = compile_network(Scale(), backend="eager")
    for da in range(12):
        assert compiled(torch.ones(1), da).item() == 2**da
    assert_graphs_and_no_break(12)


def test_a_limit_that_is_already_higher_is_kept():
    with torch._dynamo.config.patch(recompile_limit=MAX_NUM_GRAPHS + 1):
        compile_network(Scale(), backend="eager")
        assert torch._dynamo.config.recompile_limit == MAX_NUM_GRAPHS + 1


def test_one_graph_too_many_raises_instead_of_falling_back():
    compiled = compile_network(Scale(), backend="eager")
    with torch._dynamo.config.patch(recompile_limit=2):
        compiled(torch.ones(1), 0)
        compiled(torch.ones(1), 1)
        with pytest.raises(FailOnRecompileLimitHit):
            compiled(torch.ones(1), 2)


def test_graph_break_raises_instead_of_falling_back():
    with pytest.raises(Unsupported):
        compile_network(Breaks(), backend="eager")(torch.ones(1), 1)


def test_every_kind_of_layer_compiles_and_trains_at_each_pending():
    network = Layers().double()
    compiled = compile_network(network, backend="aot_eager")
    for da in (1, 2, 3):
        assert_equal_outputs_and_gradients(network, compiled, da)
    assert_graphs_and_no_break(3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # from within inductor
@pytest.mark.parametrize(
    ("backend", "num_levels"), [("aot_eager", 6), ("inductor", 3)], ids=["whole-aot_eager", "small-inductor"]
)
def test_compiled_network_trains_at_every_da(backend, num_levels):
    network = SpadUNet([16] * (num_levels - 1) + [24], [1] * num_levels).double()
    compiled = compile_network(network, backend=backend)
    for da in ALL_DA:
        assert_equal_outputs_and_gradients(network, compiled, da)
    assert_graphs_and_no_break(len(ALL_DA))


def make_vit() -> SpadViT:
    """In double precision, with positions on another grid than the image's."""
    return SpadViT(width=16, depth=1, num_heads=2, hidden_width=24, position_grid=(2, 3, 2)).double()


@pytest.mark.slow
@torch.no_grad()
def test_a_vit_is_one_graph_for_each_da_and_one_more_with_masks():
    vit = make_vit()
    compiled = compile_network(vit, backend="eager")
    x, token = torch.randn(2, 3, 9, 20, 40).double(), torch.randn(16).double()
    for da in (1, 4, 1):
        assert torch.allclose(compiled(x, da), vit(x, da))
    assert_graphs_and_no_break(2)
    masked = torch.rand(2, 12) < 0.5  # 9 slices are two patches at DA 1: 2×2×3 tokens
    assert torch.allclose(compiled(x, 1, masked, token), vit(x, 1, masked, token))
    assert_graphs_and_no_break(3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # from within inductor
@pytest.mark.parametrize(("backend", "degrees"), [("aot_eager", ALL_DA), ("inductor", (2,))])
def test_compiled_vit_trains(backend, degrees):
    vit = make_vit()
    compiled = compile_network(vit, backend=backend)
    for da in degrees:
        assert_equal_outputs_and_gradients(vit, compiled, da)
    assert_graphs_and_no_break(len(degrees))
