"""A block's branches as single steps of autograd: gradients of the usual way, less kept, and only where it is safe."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from densevit import blocks
from densevit.blocks import Block
from densevit.kernels.attention import HEAD_DIMS
from densevit.kernels.cpu_training import attention, block_autograd
from tests.needs import needs_training_attention


@pytest.fixture(params=[pytest.param("kernel", marks=needs_training_attention), "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Attention by the C kernels and by torch, one after the other."""
    if request.param == "torch":
        monkeypatch.setattr(attention, "load", lambda width: None)
    return str(request.param)


def close(found: Tensor, expected: Tensor, *, within: float = 4e-6) -> None:
    """Equal to a few roundings of the largest value; sums of values that cancel need more of them."""
    scale = max(float(expected.abs().max()), 1e-6)
    torch.testing.assert_close(found.double() / scale, expected.double() / scale, rtol=0, atol=within)


@pytest.mark.parametrize("tokens", [1, 5, 63, 64, 65, 96, 97, 193, 300])
@pytest.mark.parametrize("width", HEAD_DIMS)
def test_attention__and_its_gradients_are_torchs_up_to_rounding(form: str, tokens: int, width: int) -> None:
    generator = torch.Generator().manual_seed(tokens * width)
    qkv = torch.randn(2, tokens, 3 * 2 * width, generator=generator)
    g = torch.randn(2, tokens, 2 * width, generator=generator)

    out, sums = attention.forward(qkv, 2)
    gradient = attention.backward(g, qkv, out, sums, 2)

    leaf = qkv.double().requires_grad_()
    q, k, v = leaf.unflatten(2, (3, 2, width)).permute(2, 0, 3, 1, 4).unbind(0)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    expected.backward(g.double())
    assert leaf.grad is not None
    close(out, expected.detach())
    close(gradient, leaf.grad)


@needs_training_attention
def test_attention__stands_logits_of_any_size() -> None:
    qkv = 30 * torch.randn(1, 130, 96, generator=torch.Generator().manual_seed(0))
    qkv[:, 100:, :64] = 0

    out, sums = attention.forward(qkv, 1)
    gradient = attention.backward(torch.ones_like(out), qkv, out, sums, 1)

    assert out.isfinite().all()
    assert gradient.isfinite().all()


@needs_training_attention
def test_attention__passes_nan_on() -> None:
    qkv = torch.randn(1, 70, 96, generator=torch.Generator().manual_seed(0))
    qkv[0, 3, 5] = torch.nan

    out, sums = attention.forward(qkv, 1)

    assert out[0, 3].isnan().any()
    assert attention.backward(torch.ones_like(out), qkv, out, sums, 1).isnan().any()


@needs_training_attention
def test_attention__is_the_same_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv = torch.randn(2, 70, 3 * 48, generator=torch.Generator().manual_seed(0))
    found = []
    for threads in (1, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        out, sums = attention.forward(qkv, 3)
        found.append((out, attention.backward(out, qkv, out, sums, 3)))

    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def block(**facts: object) -> Block:
    torch.manual_seed(0)
    made = Block(32, 2, mlp_hidden_dim=64, **facts)  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def tokens(batch: int = 3) -> Tensor:
    return torch.randn(batch, 21, 32, generator=torch.Generator().manual_seed(1))


Gradients = dict[str, Tensor | None]


def run(model: Callable[[Tensor], Tensor], block: Block, *, leaf: bool = True) -> tuple[Tensor, Gradients]:
    """Result, and the gradients of input and parameters."""
    x = tokens().to(next(block.parameters()).dtype).requires_grad_(leaf)
    block.zero_grad()
    out = model(x)
    (out.float() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return out.detach(), {"x": x.grad, **{name: p.grad for name, p in block.named_parameters()}}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the branches that ran as single steps."""
    names: list[str] = []
    for name in ("attention_branch", "mlp_branch"):
        function = getattr(block_autograd, name)
        monkeypatch.setattr(blocks, name, lambda *a, name=name, function=function: names.append(name) or function(*a))
    return names


def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "can_fuse", lambda *_: False)


def same(found: tuple[Tensor, Gradients], expected: tuple[Tensor, Gradients]) -> None:
    close(found[0], expected[0])
    for name, gradient in expected[1].items():
        other = found[1][name]
        assert (gradient is None) == (other is None), name
        if gradient is not None and other is not None:
            close(other, gradient, within=3e-5)


@pytest.mark.parametrize("facts", [{}, {"qkv_bias": False, "layer_scale": 0.5}, {"dropout": 0.3, "drop_path": 0.5}])
def test_block__has_the_results_and_gradients_of_the_usual_way(
    facts: dict[str, object], form: str, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = block(**facts).eval()  # where dropout is off, as it is by default in training
    found = run(made, made)
    assert used == ["attention_branch", "mlp_branch"]

    usual(monkeypatch)
    same(found, run(made, made))
    assert len(used) == 2


@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("frozen", ["norm", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "attn", "mlp", "bias"])
def test_block__gives_frozen_parameters_no_gradient(
    frozen: str, leaf: bool, form: str, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = block()
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(frozen not in name)
    found = run(made, made, leaf=leaf)
    assert used

    usual(monkeypatch)
    same(found, run(made, made, leaf=leaf))


def test_block__keeps_less_than_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made = block()

    def kept() -> int:
        storages: dict[int, int] = {}
        parameters = {p.data_ptr() for p in made.parameters()}

        def note(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in parameters:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            made(tokens().requires_grad_())
        return sum(storages.values())

    lean = kept()
    usual(monkeypatch)
    assert lean < 0.75 * kept()


def test_block__works_with_checkpointing(form: str, used: list[str]) -> None:
    made = block()
    same(run(lambda x: checkpoint(made, x, use_reentrant=False), made), run(made, made))
    assert len(used) == 6


def test_block__works_in_float64_by_the_usual_way(used: list[str]) -> None:
    made = block().double()
    assert run(made, made)[0].dtype == torch.float64
    assert used == []


def test_block__works_under_autocast_by_the_usual_way(used: list[str]) -> None:
    made = block()
    with torch.autocast("cpu", torch.bfloat16):
        made(tokens())
    assert used == []


def test_block__draws_dropout_by_the_usual_way(used: list[str]) -> None:
    made = block(dropout=0.5)
    assert not torch.equal(made(tokens()), made(tokens()))
    assert used == []


def test_block__calls_hooks_of_its_layers(used: list[str]) -> None:
    made, seen = block(), []
    made.attn.register_forward_hook(lambda *_: seen.append("attn"))
    made.norm2.register_forward_pre_hook(lambda *_: seen.append("norm2"))
    run(made, made)

    assert seen == ["attn", "norm2"]
    assert used == []


def test_block__takes_adapters_of_its_layers(used: list[str]) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    made = block()
    plain = made(tokens()).detach()
    made.mlp.fc1 = Doubled(32, 64)
    made.attn.proj = Doubled(32, 32)
    used.clear()

    assert not torch.allclose(made(tokens()), plain)
    assert used == []


def test_block__works_with_function_transforms(used: list[str]) -> None:
    made = block()
    parameters = {name: p.detach() for name, p in made.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(made, values, (tokens(),)).square().sum()
        return found

    gradients = torch.func.grad(loss)(parameters)

    made(tokens()).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        close(gradients[name], parameter.grad, within=3e-5)


def test_block__needs_no_single_step_without_gradients(used: list[str]) -> None:
    made = block().requires_grad_(False)
    made(tokens())
    with torch.no_grad():
        block()(tokens().requires_grad_())
    assert used == []
