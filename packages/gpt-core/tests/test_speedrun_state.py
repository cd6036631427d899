"""What the speedrun's model keeps beside weights: windows and YaRN; checkpoints, generation, compilation, float8."""

import copy

import pytest
import torch
from speedrun_models import RECORDS, VOCABULARY, make, new, tokens

from gpt_core.checkpoint.model_file import load_model, save_model
from gpt_core.generate.engine import generate
from gpt_core.models.speedrun import Speedrun, check_fp8, speedrun, speedrun_loss
from gpt_core.models.speedrun.fp8 import HEADROOM, fp8_relu2_mlp
from gpt_core.training import ModelWithLoss
from gpt_kernels import dequantize, quantize, relu2_mlp

SCALES = {7: 0.116945957, 11: 0.127517524, 13: 0.131777988}
FREQUENCIES = {
    3: [1, 0.1671662, 0.02794453, 4.671381e-3, 9.765625e-4],
    7: [1, 0.1000423, 1.234084e-2, 2.002020e-3, 4.185268e-4],
    11: [1, 7.923148e-2, 7.963258e-3, 1.274013e-3, 2.663352e-4],
    13: [1, 7.363022e-2, 6.769144e-3, 1.078011e-3, 2.253606e-4],
}
SOME = [0, 8, 16, 24, 31]


def wide():
    """Frequencies as those of the records: heads of 128 channels."""
    return speedrun(VOCABULARY, n_layer=4, n_head=2, n_embd=256, init_seed=0, window_short=128, window_long=384)


def test_windows_of_the_record_stretch_frequencies_and_scale():
    model = wide()
    assert model.rotary.scale == 0.1
    assert model.rotary.frequencies[SOME].tolist() == pytest.approx(FREQUENCIES[3], rel=1e-5)
    first = model.rotary.frequencies.clone()
    for short, long in ((3, 7), (5, 11), (6, 13)):
        for _ in range(2):  # the second time nothing changes
            model.set_windows(128 * short, 128 * long)
            assert model.rotary.scale == pytest.approx(SCALES[long], rel=1e-5)
            assert model.rotary.frequencies[SOME].tolist() == pytest.approx(FREQUENCIES[long], rel=1e-5)
    assert (model.rotary.frequencies / first)[[0, 31]].tolist() == pytest.approx([1, 3 / 13], rel=1e-6)
    model.set_windows(768, 2560, yarn=False)  # of the last validation
    assert model.rotary.scale == pytest.approx(SCALES[13], rel=1e-5)
    assert (model.rotary.short, model.rotary.long) == (768, 2560)
    model.set_windows(768, 1664)  # back: the frequencies are those of this window already
    assert model.rotary.frequencies[SOME].tolist() == pytest.approx(FREQUENCIES[13], rel=1e-5)
    with pytest.raises(ValueError, match="1 <= short <= long, got 3 and 2"):
        model.set_windows(3, 2)


def test_without_yarn_only_the_mask_grows():
    model = new(yarn=False)
    before = model.rotary.frequencies.clone()
    model.set_windows(6, 30)
    assert torch.equal(model.rotary.frequencies, before) and model.rotary.scale == 0.1 and model.rotary.long == 30


def test_the_state_dict_restores_windows_and_yarn():
    """As the warm-up does: copy, go through the stages, put everything back."""
    model, ids = make(), tokens()[None]
    saved, before = copy.deepcopy(model.state_dict()), model(ids)
    model.set_windows(6, 30)
    after, stretched = model(ids), copy.deepcopy(model.state_dict())
    assert (after - before).abs().max() > 1e-4
    model.load_state_dict(saved)
    assert torch.equal(model(ids), before) and (model.rotary.short, model.rotary.long) == (5, 11)
    model.load_state_dict(stretched)
    assert torch.equal(model(ids), after)
    model.set_windows(6, 30)
    assert torch.equal(model(ids), after)


def test_frequencies_keep_their_precision_in_other_dtypes():
    model = wide().to(torch.bfloat16)
    assert model.rotary.frequencies.dtype == model.rotary.numbers.dtype == torch.float64
    assert model.rotary.frequencies[SOME].tolist() == pytest.approx(FREQUENCIES[3], rel=1e-6)
    cos, _ = model.rotary.tables(8, torch.bfloat16).plain
    assert cos.dtype == torch.bfloat16 and cos.shape == (8, 32)


def test_a_model_made_without_memory_gets_its_frequencies_when_it_gets_some():
    with torch.device("meta"):
        model = wide()
    assert model.rotary.frequencies.is_meta
    model.to_empty(device="cpu")
    assert model.rotary.frequencies[SOME].tolist() == pytest.approx(FREQUENCIES[3], rel=1e-6)
    assert model.rotary.numbers.tolist() == [128, 384, 384, 0.1]


@pytest.mark.parametrize("record", [68, 85])
def test_a_checkpoint_is_loaded_with_its_windows(tmp_path, record):
    model = new(**RECORDS[record])
    model.set_windows(6, 30)
    kwargs = {"vocab_size": VOCABULARY, **model.config.to_dict()}
    save_model(tmp_path, model, {"model": {"module": "gpt_core.models.speedrun.speedrun", "module_kwargs": kwargs}})
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Speedrun) and loaded.config == model.config
    assert loaded.rotary.scale == model.rotary.scale != 0.1 and loaded.rotary.long == 30
    assert torch.equal(loaded(tokens()[None]), model.eval()(tokens()[None]))


def test_it_generates():
    """One row at a time or together: a row's text is its own."""
    model = new()
    prompts = [tokens(5).tolist(), tokens(9, seed=1).tolist(), tokens(5, seed=2).tolist()]
    together = generate(model, prompts, 4, seed=0, notify=lambda _: None)
    assert [len(each.ids) for each in together] == [4, 4, 4]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([prompts[0]]), only_last=True)
    assert logits.shape == (1, 1, 128)


def test_generation_cannot_slide():
    with pytest.raises(ValueError, match=r"overflow='slide' needs a GPT .* got Speedrun"):
        generate(new(), [[1, 2]], 4, overflow="slide")


@pytest.mark.parametrize("fused", [False, True])
def test_the_loss_of_training_and_of_evaluation(fused):
    """Trained on are the weighted sums of several tokens; judged, in chunks of rows, is the next one."""
    model = new()
    forward = ModelWithLoss(model, speedrun_loss([1, 0.5]), fused=fused)
    ids = tokens(601)[None]
    inputs, targets = ids[:, :-1], ids[:, 1:].clone()
    targets[0, 7] = -1
    cu_seqlens = torch.tensor([0, 600], dtype=torch.int32)
    trained = forward.train()(inputs, targets, cu_seqlens)
    judged = forward.eval()(inputs, targets, cu_seqlens)
    losses = torch.log_softmax(model(inputs, cu_seqlens=cu_seqlens)[0].detach().double(), -1)
    next_token = -losses[torch.arange(600), targets[0]][targets[0] != -1].sum()
    after = [-losses[r, targets[0, r + 1]] for r in range(599) if targets[0, r + 1] != -1]
    assert float(judged.loss) == pytest.approx(float(next_token), rel=1e-5)
    assert float(trained.loss) == pytest.approx(float(next_token), rel=1e-5)
    assert float(trained.objective.detach()) == pytest.approx(float(next_token + 0.5 * sum(after)), rel=1e-5)
    assert int(judged.items) == 599 and 0 <= int(judged.correct) < 30


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_float8_without_hardware_is_a_named_error():
    with pytest.raises(ValueError, match=r"float8 needs a GPU of compute capability 8\.9 .* found no CUDA GPU"):
        check_fp8()
    with pytest.raises(ValueError, match="float8 needs a GPU"):
        speedrun_loss(fp8=True)
    model = new(fp8_mlp="up")
    model.eval()(tokens()[None])  # to evaluate and to generate with
    with pytest.raises(ValueError, match="float8 needs a GPU"):
        model.train()(tokens()[None])


def test_an_mlp_in_float8_is_the_plain_one_of_rounded_factors():
    """Both products see rounded factors, gradients do not."""
    generator = torch.Generator().manual_seed(0)
    x, up, down = (torch.randn(*shape, generator=generator) for shape in ((1, 32, 16), (64, 16), (64, 16)))
    for tensor in (x, up, down):
        tensor.requires_grad_()
    rounded = lambda t, scale=None: dequantize(quantize(t, s := scale or t.abs().max() / 448), s)
    post = (rounded(x.detach()) @ rounded(up.detach()).t()).relu().square()
    out = fp8_relu2_mlp(x, up, down, None, "emulated")
    torch.testing.assert_close(out, post @ down, rtol=1e-5, atol=1e-3)
    amax = torch.zeros(())
    both = fp8_relu2_mlp(x, up, down, amax, "emulated")
    torch.testing.assert_close(both, rounded(post) @ rounded(down.detach()), rtol=1e-4, atol=1e-2)
    assert float(amax) == pytest.approx(float(post.max()), rel=1e-5)
    delayed = fp8_relu2_mlp(x, up, down, amax, "emulated")
    scale = HEADROOM * post.max() / 448
    torch.testing.assert_close(delayed, rounded(post, scale) @ rounded(down.detach()), rtol=1e-4, atol=1e-2)
    grads = torch.autograd.grad(out.sum(), (x, up, down))
    plain = torch.autograd.grad(relu2_mlp(x, up, down).sum(), (x, up, down))
    for got, expected in zip(grads, plain, strict=True):  # they differ by the rounding of post alone
        assert (got - expected).norm() < 0.06 * expected.norm()


@pytest.mark.parametrize("kind", ["up", "both"])
def test_a_model_with_mlps_in_float8_is_near_the_plain_one(kind):
    model, plain = new(fp8_mlp=kind), new()
    for each in (model, plain):
        with torch.no_grad():
            each.mlp[:, 1].normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    model.fp8_backend = "emulated"
    ids = tokens(49)[None]
    outs = [each.train().hidden(ids[:, :-1]) for each in (model, plain)]
    difference = (outs[0] - outs[1]).norm() / outs[1].norm()
    assert 1e-4 < difference < 0.05
    outs[0].sum().backward()
    assert model.mlp.grad[:6].ne(0).any(dim=(1, 2, 3)).all()
    if kind == "both":
        assert (model.mlp_amax > 0).all() and "mlp_amax" in model.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(("record", "depth", "backend"), [(68, 4, "aot_eager"), (85, 6, "eager")])
def test_it_compiles_to_one_graph(record, depth, backend):
    model, ids = new(n_layer=depth, **RECORDS[record]), tokens(48)[None]
    forward = ModelWithLoss(model, speedrun_loss([1, 0.5]), fused=True)
    cu_seqlens = torch.tensor([0, 20, 47], dtype=torch.int32)
    eager = forward(ids[:, :-1], ids[:, 1:], cu_seqlens)
    compiled = torch.compile(forward, backend=backend, fullgraph=True)(ids[:, :-1], ids[:, 1:], cu_seqlens)
    torch.testing.assert_close(compiled.objective, eager.objective, rtol=1e-5, atol=1e-4)
    grads = [torch.autograd.grad(each.objective, list(model.parameters())) for each in (eager, compiled)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-4)
