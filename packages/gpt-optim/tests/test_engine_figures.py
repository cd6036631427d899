"""MuonAdamW against torch's optimizers, in bfloat16, compiled, and at the figures known from the GPT speedrun."""

import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz

from gpt_optim import DistAdamW, Muon, MuonAdamW, NorMuon, newton_schulz, polar_express, reference
from gpt_optim.ranks import Ranks


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(random(*shape, seed=100 + i, dtype=dtype)) for i, shape in enumerate(shapes)]


def torch_iteration(x: Tensor) -> Tensor:
    """torch.optim.Muon's, in bfloat16, for any number of matrices."""
    iterate = partial(_zeropower_via_newtonschulz, ns_coefficients=(3.4445, -4.775, 2.0315), ns_steps=5, eps=1e-7)
    return torch.stack([iterate(m) for m in x.reshape(-1, *x.shape[-2:])]).view(x.shape).to(x.dtype)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw", "spectral_unclamped"])
def test_muon_equals_torch_with_its_iteration(nesterov, scale):
    shapes = [(12, 5), (5, 12), (5, 12), (8, 8), (1, 6), (6, 1)]
    ours, theirs = parameters(*shapes), parameters(*shapes)
    optimizers = [
        Muon(ours, momentum=0.9, weight_decay=0.2, nesterov=nesterov, scale=scale, orthogonalize=torch_iteration),
        torch.optim.Muon(theirs, momentum=0.9, weight_decay=0.2, nesterov=nesterov, adjust_lr_fn=scale),
    ]
    for step in range(5):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = random(*p.shape, seed=10 * step + i)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_equals_torch(dtype):
    shapes = [(12, 5), (7,), (), (2, 3, 4)]
    ours, theirs = parameters(*shapes, dtype=dtype), parameters(*shapes, dtype=dtype)
    options = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2}
    optimizers = [DistAdamW(ours, **options), torch.optim.AdamW(theirs, **options)]
    for step in range(5):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = random(*p.shape, seed=10 * step + i, dtype=dtype)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["muon", "normuon"])
@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize(
    ("shape", "layout"), [((12, 5), {}), ((2, 5, 12), {}), ((8, 16), {"transposed": True, "split": (8, 4, 4)})]
)
def test_bfloat16_weights_with_their_low_bits_are_float32_weights_bit_by_bit(kind, cautious, shape, layout):
    narrow = parameters(shape, shape, dtype=torch.bfloat16)
    wide = [nn.Parameter(p.detach().float()) for p in narrow]
    options = {"kind": kind, "weight_decay": 0.2, "cautious": cautious, "lr": 1e-3, **layout}
    optimizers = [MuonAdamW(narrow, **options), MuonAdamW(wide, **options)]
    for step in range(6):
        for i, (p, q) in enumerate(zip(narrow, wide, strict=True)):
            p.grad = random(*p.shape, seed=10 * step + i, dtype=torch.bfloat16)
            q.grad = p.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    low = optimizers[0].state[narrow[0]]["low_bits"].view(2, *shape)
    for p, q, bits in zip(narrow, wide, low, strict=True):
        assert torch.equal(reference.join_master(p.detach(), bits), q.detach())
        assert bits.any() and not torch.equal(p.detach(), random(*shape, dtype=torch.bfloat16))
        assert torch.equal(p.detach(), reference.split_master(q.detach())[0])


@pytest.mark.parametrize("cautious", [False, True])
def test_adamw_in_bfloat16_keeps_float32_moments_and_rounds_once(cautious):
    (p,) = parameters((40, 5), dtype=torch.bfloat16)
    options = {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.2}
    optimizer = MuonAdamW([p], kind="adamw", cautious=cautious, **options)
    weight = p.detach().clone()
    first = second = torch.zeros(p.shape, dtype=torch.float64)
    for step in range(1, 7):
        p.grad = random(40, 5, seed=step, dtype=torch.bfloat16)
        wide, first, second = reference.adamw_step(
            weight.double(), p.grad.double(), first, second, step, cautious=cautious, **options
        )
        optimizer.step()
        # float32 arithmetic may fall on the other side of a rounding edge, by one unit of bfloat16, but rarely
        assert ((p.detach().double() - wide).abs() <= 2**-7 * wide.abs() + 1e-6).all()
        assert (p.detach() == wide.bfloat16()).float().mean() > 0.97
        weight = p.detach().clone()
    torch.testing.assert_close(optimizer.state[p]["exp_avg_sq"].double(), second, rtol=1e-5, atol=1e-9)


def hash_fill(rows: int, columns: int, seed: int) -> Tensor:
    """The matrix of the speedrun's figures: an integer hash of the flat index, uniform in [-1, 1)."""
    h = (1103515245 * torch.arange(rows * columns) + 12345 + 777767777 * seed) % 2**32
    h = (1103515245 * (h ^ (h >> 16))) % 2**32
    h = h ^ (h >> 13)
    return (2 * (h.double() / 2**32 - 0.5)).float().view(rows, columns)


@pytest.mark.parametrize(("shape", "norm", "row"), [((768, 768), 27.8027, 1.00325), ((3072, 768), 27.6769, 0.49937)])
def test_first_normuon_step_of_the_speedrun(shape, norm, row):
    """From zero weights, a step of rate 1 leaves minus the update: rows of one length, the norm as orthogonalised."""
    p = nn.Parameter(torch.zeros(shape))
    orthogonalize = partial(polar_express, dtype=torch.float32)
    optimizer = NorMuon([p], lr=1.0, momentum=0.95, scale="match_rms_adamw", orthogonalize=orthogonalize)
    p.grad = hash_fill(*shape, seed=1)
    optimizer.step()
    update = -p.detach() / reference.shape_scale("match_rms_adamw", *shape)
    assert update.norm().item() == pytest.approx(norm, abs=3e-4)
    torch.testing.assert_close(update.norm(dim=1), torch.full(shape[:1], row), rtol=0, atol=2e-5)
    if shape == (768, 768):
        torch.testing.assert_close(update[0, :3], torch.tensor([-0.032242, -0.000043, -0.025222]), rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("shape", "lr", "decay"), [((8, 8), 0.023, 6.348e-4), ((32, 8), 0.023, 1.2696e-3), ((32, 8), 0.046, 2.5392e-3)]
)
def test_normuon_decay_of_the_speedrun(shape, lr, decay):
    (p,) = parameters(shape)
    before = p.detach().clone()
    optimizer = NorMuon([p], lr=lr, weight_decay=1.2 * 0.023, cautious=True, scale_decay=True)
    p.grad = torch.zeros_like(p)  # no update, so every entry decays
    optimizer.step()
    torch.testing.assert_close(p.detach(), before * (1 - decay), rtol=2e-7, atol=0)


@pytest.mark.parametrize(
    ("lr", "weight_decay", "decay"), [(0.6, 5 * 0.005, 0.009), (0.008, 150 * 0.005, 4.8e-5), (0.008, 0.005, 3.2e-7)]
)
def test_first_adam_step_of_the_speedrun(lr, weight_decay, decay):
    """Its decay is lr²·weight_decay, which is `weight_decay` times lr here."""
    (p,) = parameters((64,), dtype=torch.float64)
    before, p.grad = p.detach().clone(), random(64, seed=1, dtype=torch.float64)
    DistAdamW([p], lr=lr, betas=(0.9, 0.99), eps=1e-10, weight_decay=lr * weight_decay, cautious=True).step()
    decayed = torch.where(before * p.grad > 0, before * (1 - decay), before)
    torch.testing.assert_close(p.detach(), decayed - lr * p.grad.sign(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("value", "result"), [(1e-3, 0.858873), (3e-3, 0.966383), (1e-2, 1.0271), (0.1, 1.059161), (1 / 1.02, 0.903537)]
)
def test_polar_express_maps_singular_values(value, result):
    rest = ((1 / 1.02) ** 2 - value**2) ** 0.5  # dividing by 1.02 times the norm gives these values back
    y = polar_express(1e6 * torch.diag(torch.tensor([value, rest], dtype=torch.float64)), dtype=torch.float64)
    assert y[0, 0].item() == pytest.approx(result, abs=5e-5)


def test_polar_express_keeps_its_range():
    """Assertion 9 of the speedrun: the five polynomials on [0.001, 1/1.02]."""
    x = torch.linspace(1e-3, 1 / 1.02, 400_000, dtype=torch.float64)
    for a, b, c in reference.POLAR_EXPRESS:
        x = a * x + b * x**3 + c * x**5
    assert (x.min().item(), x.max().item()) == pytest.approx((0.858873, 1.141127), abs=1e-6)


def test_polar_express_of_a_gaussian_matrix_in_bfloat16():
    """A quarter of the size for which the figures were taken: products in bfloat16 are slow on many CPUs."""
    values = torch.linalg.svdvals(polar_express(random(192, 768), dtype=torch.bfloat16).float())
    assert values.min() > 0.84 and values.max() < 1.15


def d12() -> list[nn.Parameter]:
    """The matrices of 12 layers of width 768, without memory."""
    shapes = [*[(768, 768)] * 4, (3072, 768), (768, 3072)] * 12
    return [nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes]


def test_state_bytes_of_twelve_layers():
    mebibyte = 2**20
    assert Muon(d12()).expected_state_bytes() == 324 * mebibyte
    optimizer = NorMuon(d12())
    assert optimizer.expected_state_bytes() == 324 * mebibyte + 432 * 1024
    held = sum(t.numel() * t.element_size() for state in optimizer.state.values() for t in state.values())
    assert held == optimizer.expected_state_bytes()


def test_shares_of_twelve_layers_on_eight_processes():
    ranks = Ranks()
    vars(ranks)["size"] = 8
    assert ranks.shares(12) == [2, 2, 2, 2, 2, 2, 0, 0]
    assert ranks.chunk(48) * 768**2 + 2 * ranks.chunk(12) * 768 * 3072 == 12_976_128


def test_bfloat16_state_bytes_count_the_low_bits():
    optimizer = NorMuon(parameters((12, 5), (2, 12, 5), dtype=torch.bfloat16))
    assert optimizer.expected_state_bytes() == 3 * (12 * 5 * 4 + 12 * 4 + 12 * 5 * 2)
    held = sum(t.numel() * t.element_size() for state in optimizer.state.values() for t in state.values())
    assert held == optimizer.expected_state_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "cautious"), [(torch.float32, False), (torch.bfloat16, True)])
def test_compiled_rules_equal_the_eager_ones_and_compile_once(dtype, cautious):
    shapes = [(12, 5), (12, 5), (5, 12)]

    def build(compile: bool) -> MuonAdamW:
        matrices, banks, vectors = parameters(*shapes, dtype=dtype), parameters((8, 8), dtype=dtype), parameters((7,))
        groups = [
            {"params": matrices, "kind": "muon"},
            {"params": banks, "kind": "normuon", "split": (4, 4)},
            {"params": [*parameters((6, 3), dtype=dtype), *vectors], "kind": "adamw", "lr": 0.01},
        ]
        orthogonalize = partial(newton_schulz, dtype=torch.float32)
        return MuonAdamW(groups, weight_decay=0.1, cautious=cautious, orthogonalize=orthogonalize, compile=compile)

    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled, eager = build(True), build(False)
    graphs = []
    for step in range(6):
        for optimizer in (compiled, eager):
            for number, group in enumerate(optimizer.param_groups):
                group["lr"] = 0.01 / (1 + step)
                group["weight_decay"] = 0.1 * step
                group["momentum"] = 0.85 + 0.01 * step
                group["beta2"] = 0.9 + 0.01 * step
                group["betas"], group["eps"] = (0.9 - 0.01 * step, 0.95 - 0.01 * step), 1e-8 * (1 + step)
                for i, p in enumerate(group["params"]):
                    p.grad = random(*p.shape, seed=100 * step + 10 * number + i, dtype=p.dtype)
            optimizer.step()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] > 0 and graphs == graphs[:1] * 6
    for ours, theirs in zip(compiled.param_groups, eager.param_groups, strict=True):
        for p, q in zip(ours["params"], theirs["params"], strict=True):
            rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (2**-6, 1e-4)
            torch.testing.assert_close(p.detach(), q.detach(), rtol=rtol, atol=atol)


def test_compiled_rules_take_any_number_of_shapes(monkeypatch):
    """torch refuses to compile one function for more than eight of them."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    matrices = [nn.Parameter(random(4, 3 + n, seed=n)) for n in range(10)]
    others = [nn.Parameter(random(4, 3, seed=n, dtype=torch.bfloat16)) for n in range(2)]
    groups = [{"params": matrices}, *({"params": [p], "kind": "adamw", "lr": 0.01} for p in others)]
    optimizer = MuonAdamW(groups, compile=True, orthogonalize=torch.clone)
    before = [p.detach().clone() for p in (*matrices, *others)]
    for p in (*matrices, *others):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip((*matrices, *others), before, strict=True))


@pytest.mark.parametrize("fails", ["at once", "at the first step"])
def test_without_a_compiler_the_rules_run_eagerly(monkeypatch, fails):
    def no_compiler(*args, **kwargs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(
        torch, "compile", no_compiler if fails == "at once" else partial(torch.compile, backend=no_compiler)
    )
    eager, other = parameters((6, 4)), parameters((6, 4))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        optimizers = [Muon(eager), Muon(other, compile=True)]
        for (p,), optimizer in zip((eager, other), optimizers, strict=True):
            p.grad = random(6, 4)
            optimizer.step()
    for rule, warning in zip(("muon_direction", "subtract"), told, strict=True):
        message = str(warning.message)
        assert message.startswith(f"{rule} cannot be compiled, and runs eagerly: ") and "no compiler here" in message
    torch.testing.assert_close(eager, other)
