"""The one place where models run: casts, copies, parts, and errors of one line."""

from __future__ import annotations

import signal
from functools import partial

import pytest
import torch
from torch import nn

import certmix
from certmix.attacks import ATTACKS
from certmix.calling import ModelWarning, OutOfMemoryError, call_model
from certmix.errors import CertmixError, ModelError, ParameterError
from certmix.models.mixture import mix_logits
from certmix.nuts.mixture import TransformedRobust
from certmix.sampling import Sampler
from certmix.sampling.packing import Draw

X = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A linear net that first does something of its own with the batch."""

    def __init__(self, first=lambda x: x, last=lambda z: z):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.first, self.last, self.sizes = nn.Linear(4, 3), first, last, []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.last(self.linear(self.first(x)))


def limited(most, kind=AssertionError):
    """Return a net that fails on more than `most` rows."""

    def first(x):
        if len(x) > most:
            raise kind(f"at most {most} rows")
        return x

    return Net(first).eval()


def leaves(x):
    raise SystemExit(0)


def in_range(x):
    assert x.min() >= 0 and x.max() <= 1, "inputs must lie in [0, 1]"
    return x


IN_PLACE = {
    "sub": lambda x: x.sub_(0.5),
    "clamp": lambda x: x.clamp_(0, 1),
    "relu": nn.ReLU(inplace=True),
    "view": lambda x: x.view(-1).mul_(2).view_as(x),
    "index": lambda x: x.__setitem__((slice(None), 0), 0.0) or x,
}
FAILURES = {
    "error": (lambda x: x @ torch.ones(9, 9), "RuntimeError"),
    "assertion": (lambda x: in_range(x - 5), "AssertionError: inputs must lie"),
    "exit": (leaves, "SystemExit: 0: a model must not end the program"),
    "in place": (lambda x: x.mul_(2) @ torch.ones(9, 9), "RuntimeError"),
    "index": (lambda x: x[:, 99], "IndexError"),
}
OUTPUTS = {
    "tuple": (lambda z: (z.tolist(), z), "returns tuple: return a tensor or an array of shape"),
    "dict": (lambda z: {"scores": z}, "returns dict"),
    "named": (lambda z: {"logits": [z]}, r"returns list as its \['logits'\]: return"),
    "first": (lambda z: [z[:, 0], z], r"returns shape \(7,\) as the first of its 2, expected \(7, classes\)"),
    "flat": (lambda z: z[:, 0], r"returns shape \(7,\), expected \(7, classes\): return one row"),
    "fewer": (lambda z: z[:1], r"returns shape \(1, 3\), expected \(7, classes\)"),
    "classes": (lambda z: z.argmax(1, keepdim=True).repeat(1, 3), "returns torch.int64"),
}


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
@pytest.mark.parametrize("mode", ["enable_grad", "no_grad", "inference_mode"])
def test_a_changed_input_is_named_and_the_caller_s_is_unharmed(change, mode):
    net, given = Net(change), X.clone().requires_grad_(mode == "enable_grad")
    expected, context = Net(change)(X.clone()), getattr(torch, mode)
    with context(), pytest.warns(ModelWarning, match="^mine changes its input in place"):
        logits = call_model(net, given, "mine")
    assert torch.equal(given, X)
    assert torch.equal(logits, expected)
    with context():
        assert torch.equal(call_model(net, given, "mine"), expected), "said once"
    if mode == "enable_grad":
        logits.sum().backward()
        assert given.grad.isfinite().all()


@pytest.mark.parametrize("change", [IN_PLACE["sub"], IN_PLACE["view"]])
def test_h_is_not_given_what_g_changed(change):
    given, g, h = X.clone(), Net(change), Net()
    with pytest.warns(ModelWarning, match="the standard model changes its input in place"):
        mixed = certmix.MixedClassifier(g, h, 0.76)(given)
    assert torch.equal(given, X)
    assert torch.equal(mixed, mix_logits(g(X.clone()), h(X), 0.76).float())
    robust = Net(change).eval()
    with pytest.warns(ModelWarning, match="changes its input in place"):
        counts = Sampler(robust, 3, 0.5).votes(X[0], 0, [500])
    assert (counts == Sampler(Net(lambda x: change(x.clone())).eval(), 3, 0.5).votes(X[0], 0, [500])).all()


@pytest.mark.filterwarnings("ignore::certmix.calling.ModelWarning")
@pytest.mark.parametrize(("first", "message"), FAILURES.values(), ids=FAILURES)
def test_failures_are_one_line_wherever_the_model_is_called(first, message):
    net = Net(first).eval()
    for call in (
        lambda: call_model(net, X, "the model"),
        lambda: certmix.MixedClassifier(Net(), net, 0.76)(X),
        lambda: certmix.SmoothedClassifier(net, 0.5).predict(X),
        lambda: certmix.SmoothedClassifier(net, 0.5, classes=3).certify(X, 100),
        lambda: Sampler(net, 3, 0.5, batch_size=10).votes(X[0], 0, [100]),
        lambda: list(Sampler(net, 3, 0.5, batch_size=10).scores([Draw(X[0], 0, (20,))])),
    ):
        with pytest.raises(ModelError, match=f"^the (robust )?model fails on inputs .*{message}") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::certmix.calling.ModelWarning")
@pytest.mark.parametrize("name", ["pgd", "apgd-ce"])
def test_attacks_see_through_models_that_change_their_input(name):
    labels = Net()(X).argmax(1)
    attack, found = ATTACKS[name].function, []
    for change in (lambda x: x.mul_(1.0), lambda x: x):
        generator = torch.Generator().manual_seed(0)
        found.append(attack(Net(change).eval(), X, labels, "linf", 0.3, generator=generator))
    assert torch.equal(*found)


@pytest.mark.parametrize(("last", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_is_no_logits_is_named(last, message):
    with pytest.raises(ModelError, match=f"^mine {message}"):
        call_model(Net(last=last), X, "mine")
    for other in (Net(last=last), Net()):
        with pytest.raises(ModelError, match=message):
            certmix.MixedClassifier(Net(last=last), other, 0.76)(X)


@pytest.mark.parametrize("most", [1, 3, 7])
def test_batches_are_cut_to_what_the_model_takes(most):
    net, given = limited(most, RuntimeError), X.clone().requires_grad_()
    whole = Net()
    for _ in range(2):
        logits = call_model(net, given)
        torch.testing.assert_close(logits, whole(X), rtol=0, atol=1e-6)
        (slope,) = torch.autograd.grad(logits.sum(), given)
        torch.testing.assert_close(slope, whole.linear.weight.sum(0).expand(7, 4))
    net.sizes.clear()
    call_model(net, X)
    assert len(set(net.sizes)) == 1, "every part has one shape, and what was too large is not tried again"
    assert net.sizes[0] <= most


def test_one_row_at_fault_is_never_left_out():
    def refuses(x):
        assert not (x == X[5]).all(1).any(), "this row"
        return x

    with pytest.raises(ModelError, match=r"fails on inputs \(1, 4\) float32: AssertionError: this row"):
        call_model(Net(refuses), X)


def test_a_check_of_the_range_is_told_from_a_batch_that_is_too_large():
    net = Net(in_range).eval()
    assert call_model(net, X).shape == (7, 3)
    with pytest.raises(ModelError, match=r"takes inputs in \[0, 1\] and refuses others, as noise makes them"):
        Sampler(net, 3, 0.5).votes(X[0], 0, [100])
    net.sizes.clear()
    with pytest.raises(ModelError):
        call_model(net, X - 0.5)
    assert net.sizes == [7, 7, 7], "no smaller batches are tried: one that passes by chance would hide it"


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), OSError(28, "No space left on device")]
)
def test_a_failure_that_passes_is_no_check_of_the_range(error):
    def once(x):
        if len(net.sizes) == 1:
            raise error
        return x

    net = Net(once).eval()
    assert torch.equal(call_model(net, X - 0.5), Net()(X - 0.5))


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("given", [torch.float16, torch.float64])
def test_inputs_are_cast_to_the_model_once(weights, given):
    net, x = Net().to(weights), X.to(given, copy=True).requires_grad_()
    logits = call_model(net, x)
    assert logits.dtype == weights
    assert torch.equal(logits, net(X.to(given).to(weights)))
    logits.sum().backward()
    assert x.grad.dtype == given
    mix = certmix.MixedClassifier(net, Net(), 0.76)(x)
    assert mix.dtype == torch.float32


def test_out_of_memory_is_both_kinds_of_error():
    with pytest.raises(torch.OutOfMemoryError) as caught:
        call_model(limited(3, torch.OutOfMemoryError), X, "mine")
    assert isinstance(caught.value, OutOfMemoryError)
    assert isinstance(caught.value, CertmixError)
    assert "mine runs out of memory with 7 inputs at once: give a smaller batch size" in str(caught.value)


def test_the_user_s_interrupts_and_our_own_errors_pass():
    with pytest.raises(ParameterError, match="^at most 3 rows$"):
        call_model(limited(3, ParameterError), X)

    def interrupted(x):
        signal.raise_signal(signal.SIGINT)

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    try:
        for one in (signal.default_int_handler, handler):
            signal.signal(signal.SIGINT, one)
            with pytest.raises(KeyboardInterrupt):
                call_model(interrupted, X)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, GeneratorExit, pytest.skip.Exception, EOFError]
)
def test_whatever_a_model_raises_is_a_failure_of_it(kind):
    def failing(x):
        raise kind

    with pytest.raises(ModelError, match=f"fails on inputs .*: {kind.__name__}"):
        call_model(failing, X)


@pytest.mark.parametrize(
    "kind", [MemoryError, partial(RuntimeError, "DefaultCPUAllocator: can't allocate memory:")]
)
def test_lacking_memory_is_named_with_its_remedy(kind):
    assert call_model(limited(3, kind), X).shape == (7, 3)
    with pytest.raises(
        ModelError, match="even a single input is too many: give fewer --workers, free memory"
    ):
        call_model(limited(0, kind), X)


def test_empty_batches_and_tracing_pass():
    assert call_model(Net(), X[:0]).shape == (0, 3)
    linear = nn.Linear(4, 3)
    mix = certmix.MixedClassifier(linear, linear, 0.76).eval()
    program = torch.export.export(mix, (X,)).module()
    torch.testing.assert_close(program(X), mix(X))
    slopes = torch.func.vmap(torch.func.grad(lambda x: call_model(linear, x).sum()))(X)
    assert slopes.shape == (7, 4)
    transformed = TransformedRobust(linear, nn.Identity())
    tracer = torch.fx.Tracer()
    assert any(node.target == "robust" for node in tracer.trace(transformed).nodes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_inputs_move_to_the_model_and_logits_back():
    logits = call_model(Net().cuda(), X)
    assert logits.device == X.device
    torch.testing.assert_close(logits, Net()(X))
