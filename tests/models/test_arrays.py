"""Models that are no torch modules: functions on arrays and tensors, scikit-learn, ONNX; and what models return."""

import functools
import math
import pickle
from collections import namedtuple

import numpy as np
import pytest
import torch
from onnx_nets import W, graph
from torch import nn

from certmix import MixedClassifier
from certmix.attacks import ATTACKS
from certmix.calling import ModelWarning, call_model
from certmix.errors import ModelError, ParameterError
from certmix.models.checks import check_logits
from certmix.models.spec import load_model, wrap_model

X = torch.rand(7, 2, 2, generator=torch.Generator().manual_seed(0))
LOGITS = X.flatten(1) @ torch.from_numpy(W)


def scores(x):
    assert isinstance(x, np.ndarray)
    return x.reshape(len(x), -1) @ W


def shares(x):
    e = np.exp(scores(x))
    return e / e.sum(1, keepdims=True)


def of_tensors(x):
    return x.flatten(1) @ torch.from_numpy(W)


class Linear(nn.Module):
    def __init__(self, wrap=lambda z: z):
        super().__init__()
        self.weight, self.wrap = nn.Parameter(torch.from_numpy(W)), wrap

    def forward(self, x):
        return self.wrap(x.flatten(1) @ self.weight)


Output = namedtuple("Output", "logits loss")
Other = namedtuple("Other", "scores features")
HELD = {
    "attribute": (lambda z: Output(z, 0.0), r"its \.logits"),
    "prediction": (lambda z: {"loss": 0, "prediction_logits": z}, r"its \['prediction_logits'\]"),
    "key": (lambda z: {"loss": 0.0, "logits": z}, r"its \['logits'\]"),
    "tuple": (lambda z: (z, z.sum()), "the first of its 2"),
    "named tuple": (lambda z: Other(z, z), "the first of its 2"),
    "one": (lambda z: (z,), ""),
    "array": (lambda z: z.detach().numpy(), ""),
    "list": (lambda z: z.tolist(), ""),
}


@pytest.mark.parametrize("name", HELD)
def test_logits_are_found_in_what_a_model_returns_and_it_is_said_once(name):
    wrap, taken = HELD[name]
    model = Linear(wrap)
    if taken:
        with pytest.warns(
            ModelWarning, match=f"^mine returns more than logits: {taken} is taken, the rest left$"
        ):
            first = call_model(model, X, "mine")
    else:
        first = call_model(model, X, "mine")
    again = call_model(model, X, "mine")  # warnings are errors
    assert torch.allclose(first.float(), LOGITS) and torch.equal(first, again)
    if taken:
        given = X.clone().requires_grad_()
        call_model(model, given)[:, 0].sum().backward()
        assert given.grad.abs().sum() > 0


NET = Linear()
CALLABLES = {
    "function of arrays": (scores, "logits"),
    "function of tensors": (of_tensors, "logits"),
    "lambda": (lambda x: scores(x), "logits"),
    "of lists": (lambda x: scores(x).tolist(), "logits"),
    "over a module": (lambda x: NET(x), "logits"),
    "shares": (shares, "probabilities"),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_a_function_of_arrays_or_tensors_is_a_model(name):
    function, outputs = CALLABLES[name]
    loaded = wrap_model(function, outputs=outputs)
    found = call_model(loaded.module, X)
    assert torch.allclose(found.float().softmax(1), LOGITS.softmax(1), atol=1e-6)
    assert loaded.doubt == "it is an object in memory" and loaded.spec == loaded.name
    assert torch.equal(call_model(loaded.module, X), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_arrays_are_floats_of_32_or_64_bits(dtype):
    kinds = []
    loaded = wrap_model(lambda x: kinds.append(x.dtype) or scores(x))
    call_model(loaded.module, X.to(dtype))
    assert kinds == [np.float64 if dtype == torch.float64 else np.float32]


def test_a_function_that_fails_is_named_with_both_reasons():
    def broken(x):
        raise KeyError(type(x).__name__)

    with pytest.raises(ModelError, match="KeyError: 'ndarray' of an array, KeyError: 'Tensor' of a tensor"):
        call_model(wrap_model(broken).module, X)


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "autoattack"])
def test_attacks_by_gradients_are_refused_and_square_works(attack):
    arrays, torchs = wrap_model(scores).module, wrap_model(Linear()).module
    labels = LOGITS.argmax(1)
    for model in (arrays, MixedClassifier(arrays, torchs, 0.6), MixedClassifier(torchs, arrays, 0.6)):
        arguments = {"model": model.eval(), "inputs": X, "labels": labels, "norm": "linf", "eps": 0.2}
        if ATTACKS[attack].gradient_free:
            assert ATTACKS[attack].function(**arguments, queries=50).shape == X.shape
            continue
        with pytest.raises(ModelError, match="gradient.* by square"):
            ATTACKS[attack].function(**arguments)


def test_a_mix_with_a_gradient_trust_needs_gradients():
    arrays, torchs = wrap_model(scores).module, wrap_model(Linear()).module
    with pytest.raises(ModelError, match="outputs change with the input but carry no gradient"):
        MixedClassifier(arrays, torchs, 0.6, trust="gradient")(X)
    mixed = (MixedClassifier(g, torchs, 0.6)(X) for g in (arrays, torchs))
    assert torch.allclose(*mixed, atol=1e-6)


def test_what_is_no_model_is_refused():
    for given in (3, None, {"a": 1}, Linear, [scores]):
        with pytest.raises(
            ModelError, match="give a torch module, a classifier with predict_proba, or a function"
        ):
            wrap_model(given)


# Probabilities.


def test_declared_probabilities_are_taken_as_such_and_others_refused():
    g, h = wrap_model(shares, outputs="probabilities").module, Linear().eval()
    exact = 0.4 * LOGITS.softmax(1) + 0.6 * LOGITS.softmax(1)
    assert torch.allclose(MixedClassifier(g, h, 0.6)(X).exp(), exact, atol=1e-6)
    zeros = wrap_model(lambda x: np.eye(3, dtype=np.float32)[scores(x).argmax(1)], outputs="probabilities")
    assert call_model(zeros.module, X).isfinite().all()
    with pytest.raises(
        ModelError, match="probabilities were declared, .* sum to 1 within .* alone.*declare logits"
    ):
        call_model(wrap_model(scores, outputs="probabilities").module, X)
    with pytest.raises(ModelError, match="outputs 'odds': use"):
        load_model("nets.py:net", outputs="odds")
    with pytest.raises(ModelError, match="gives logits: declare no outputs"):
        load_model("cifar10-standard", outputs="logits")


# scikit-learn.


@pytest.fixture(scope="module")
def fitted():
    """Classifiers of three classes of four features."""
    linear = pytest.importorskip("sklearn.linear_model")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 4))
    labels = (rows @ W).argmax(1)
    kinds = {
        "linear": linear.LogisticRegression(),
        "pipeline": make_pipeline(StandardScaler(), linear.LogisticRegression()),
        "trees": RandomForestClassifier(3, random_state=0),
        "scores": LinearSVC(random_state=0),
    }
    return {name: kind.fit(rows, labels) for name, kind in kinds.items()}, rows, labels


@pytest.mark.parametrize("name", ["linear", "pipeline", "trees", "scores"])
def test_a_classifier_of_scikit_learn_is_a_model(fitted, name):
    estimator, rows = fitted[0][name], fitted[1].astype(np.float32)
    loaded = wrap_model(estimator)
    found = call_model(loaded.module, torch.from_numpy(rows[:9]))
    assert (found.argmax(1).numpy() == estimator.predict(rows[:9])).all()
    if name != "scores":
        assert np.allclose(found.exp(), estimator.predict_proba(rows[:9]), atol=1e-6)
        assert loaded.checksum != wrap_model(estimator.predict_proba).checksum  # its name
        assert torch.equal(
            call_model(wrap_model(estimator.predict_proba).module, torch.from_numpy(rows[:9])), found
        )
    check_logits(loaded.module, torch.from_numpy(rows[:4]).view(4, 2, 2), 3, "mine")  # of any shape


def test_a_classifier_of_two_classes_by_one_score(fitted):
    from sklearn.svm import LinearSVC

    rows, labels = fitted[1], fitted[2] == 0
    machine = LinearSVC(random_state=0).fit(rows, labels)
    found = call_model(wrap_model(machine).module, torch.from_numpy(rows))
    assert found.shape == (60, 2)
    assert np.allclose(found[:, 1] - found[:, 0], machine.decision_function(rows))


def test_the_content_of_an_estimator_is_its_identity(fitted):
    (estimator, rows, labels), checksum = (
        (fitted[0]["trees"], *fitted[1:]),
        wrap_model(fitted[0]["trees"]).checksum,
    )
    assert wrap_model(pickle.loads(pickle.dumps(estimator))).checksum == checksum
    other = type(estimator)(3, random_state=1).fit(rows, labels)
    assert wrap_model(other).checksum != checksum


def test_names_of_columns_are_given_back_to_who_was_fitted_with_them(fitted):
    import pandas
    from sklearn.linear_model import LogisticRegression

    frame = pandas.DataFrame(fitted[1], columns=["a", "b", "c", "d"])
    model = LogisticRegression().fit(frame, fitted[2])
    call_model(wrap_model(model).module, torch.from_numpy(fitted[1]))  # else it warns, which is an error here


def test_classes_with_gaps_and_several_labels_are_refused(fitted):
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    rows, labels = fitted[1], fitted[2]
    with pytest.raises(ModelError, match="fitted on the classes 0, 10, 20: .*labels without gaps"):
        wrap_model(LogisticRegression().fit(rows, 10 * labels))
    assert wrap_model(LogisticRegression().fit(rows, 1 + labels)).name == "LogisticRegression"
    with pytest.raises(ModelError, match="gives several labels an input"):
        wrap_model(DecisionTreeClassifier().fit(rows, np.stack([labels, labels], 1)))
    with pytest.raises(ModelError, match="NotFittedError"):
        call_model(wrap_model(LogisticRegression()).module, X)


@pytest.mark.parametrize("ending", ["joblib", "pkl", "pickle"])
def test_a_pickle_of_an_estimator(fitted, tmp_path, ending):
    joblib = pytest.importorskip("joblib")
    path, estimator, rows = tmp_path / f"trees.{ending}", fitted[0]["trees"], fitted[1]
    joblib.dump(estimator, path) if ending == "joblib" else path.write_bytes(pickle.dumps(estimator))
    loaded = load_model(str(path))
    assert (loaded.name, loaded.doubt) == ("trees", "")
    found = call_model(loaded.module, torch.from_numpy(rows))
    assert np.allclose(found.exp(), estimator.predict_proba(rows), atol=1e-6)
    path.write_bytes(b"no pickle")
    with pytest.raises(ModelError, match=r"trees.*use the versions of Python and packages"):
        load_model(str(path))
    with pytest.raises(ModelError, match="brings its own weights"):
        load_model(str(path), weights=tmp_path / "w.pt")


def test_a_factory_gives_an_estimator_or_is_the_function_itself(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n"
        "def trees(c=1.0):\n    rows = np.eye(4)\n    return LogisticRegression(C=c).fit(rows, [0, 1, 2, 2])\n"
        "def scores(x):\n    return x.reshape(len(x), -1)[:, :3]\nready = trees()\nmethod = ready.predict_proba\n"
    )
    for factory in ("trees", "ready", "method"):
        found = call_model(load_model(f"{path}:{factory}").module, X)
        assert torch.allclose(found.exp().sum(1).float(), torch.ones(7))
    loaded = load_model(f"{path}:scores")
    assert (loaded.doubt, torch.equal(call_model(loaded.module, X), X.flatten(1)[:, :3])) == ("", True)
    before = load_model(f"{path}:ready").checksum
    path.write_text(path.read_text().replace("c=1.0", "c=9.0"))
    assert load_model(f"{path}:ready").checksum != before


# What an object in memory is known by.


class Client:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return x.reshape(len(x), -1) @ self.weight

    def ask(self, x):
        return self(x)


def made(factor):
    net, table = Linear(), {"a": factor}

    def inner(x):
        return x * factor

    return {
        "closure": lambda x: net(x) * factor,
        "function within": lambda x: inner(scores(x)),
        "default": lambda x, c=factor: scores(x) * c,
        "table": lambda x: scores(x) * table["a"],
        "client": Client(factor * W),
        "method": Client(factor * W).ask,
        "partial": functools.partial(lambda x, c: scores(x) * c, c=factor),
        "tensor": (lambda w: lambda x: of_tensors(x) @ w)(factor * torch.eye(3)),
    }


@pytest.mark.parametrize("name", made(1.0))
def test_functions_are_known_by_their_code_and_what_they_carry(name):
    first, same, other = (wrap_model(made(c)[name]).checksum for c in (1.0, 1.0, 2.0))
    assert first == same != other


def test_other_code_is_another_model_and_modules_of_functions_are_evaluated():
    assert wrap_model(lambda x: scores(x) + 1).checksum != wrap_model(lambda x: scores(x) + 2).checksum
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5)).train()
    loaded = wrap_model(lambda x: net(x))
    assert torch.equal(call_model(loaded.module, X), call_model(loaded.module, X)) and not net.training
    before = loaded.checksum
    net[1].bias.data += 1
    assert wrap_model(lambda x: net(x)).checksum != before


# ONNX.


@pytest.mark.parametrize("kind", [1, 11])
@pytest.mark.parametrize("batch", ["batch", 1, 3, 7, 9])
def test_an_onnx_graph_is_a_model_of_batches_of_any_size(tmp_path, batch, kind):
    loaded = load_model(graph(tmp_path / "net.onnx", batch=batch, kind=kind))
    assert (loaded.name, loaded.doubt, loaded.input_range) == ("net", "", None)
    for rows in (1, 3, 7):
        assert torch.allclose(call_model(loaded.module, X[:rows]).float(), LOGITS[:rows], atol=1e-6)
    scaled = load_model(str(tmp_path / "net.onnx"), normalize="0.5/0.25")
    expected = ((X - 0.5) / 0.25).flatten(1) @ torch.from_numpy(W)
    assert torch.allclose(call_model(scaled.module, X).float(), expected, atol=1e-5)


def test_an_output_called_logits_is_taken_and_said(tmp_path):
    said = []
    loaded = load_model(graph(tmp_path / "net.onnx", ("label", "shares", "logits")), say=said.append)
    assert said == ["Note: net: of its 3 outputs, 'logits' is taken"]
    assert torch.allclose(call_model(loaded.module, X), LOGITS, atol=1e-6)
    path = graph(tmp_path / "net.onnx", ("label", "shares"))
    only = load_model(path, outputs="probabilities")
    assert torch.allclose(call_model(only.module, X), LOGITS.log_softmax(1), atol=1e-6)


def test_weights_beside_the_graph_belong_to_it(tmp_path):
    path = graph(tmp_path / "net.onnx", external=True)
    assert (tmp_path / "net.data").is_file()
    loaded = load_model(path)
    assert torch.allclose(call_model(loaded.module, X), LOGITS, atol=1e-6)
    (tmp_path / "net.data").write_bytes((2 * W).tobytes() + bytes(12))
    other = load_model(path)
    assert torch.allclose(call_model(other.module, X), 2 * LOGITS, atol=1e-6)
    assert other.checksum != loaded.checksum
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModelError, match="with its weights beside it"):
        load_model(path)


def test_graphs_that_will_not_do_are_refused(tmp_path):
    for settings, message in [
        ({"outputs": ("label",)}, "gives label tensor.int64., no tensor of floats: export the scores"),
        ({"inputs": ("x", "y")}, "takes x tensor.float., y tensor.float.: export a graph of one float input"),
    ]:
        with pytest.raises(ModelError, match=message):
            load_model(graph(tmp_path / "net.onnx", **settings))
    for content, message in [(b"", "it is empty"), (b"<html>", "web page"), (b"junk", "export it again")]:
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=message):
            load_model(str(tmp_path / "net.onnx"))
    with pytest.raises(ParameterError, match="normalize"):
        load_model(graph(tmp_path / "net.onnx"), normalize="1")


def test_probabilities_keep_their_precision():
    tiny = wrap_model(lambda x: np.tile(np.array([[1e-30, 1 - 1e-30]]), (len(x), 1)), outputs="probabilities")
    assert math.isclose(float(call_model(tiny.module, X)[0, 0]), math.log(1e-30), rel_tol=1e-9)
