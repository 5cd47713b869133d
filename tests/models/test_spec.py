"""Loading by spec: each form, the weights, the normalisation, the checksum, and every refusal."""

import hashlib
import logging
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from safetensors.torch import save_file
from torch import nn

from certmix.calling import call_model
from certmix.errors import CertmixError, ModelError, ParameterError
from certmix.models.architectures import build
from certmix.models.mixture import MixedClassifier
from certmix.models.spec import load_model, parse_normalize, wrap_model
from certmix.models.zoo import load_zoo, save_zoo

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        torch.manual_seed(0)
        self.flat, self.out = nn.Flatten(), nn.Linear(12, width)
        self.noise = nn.Dropout(0.5)
    def forward(self, x):
        return self.noise(self.out(self.flat(x)))

def wide():
    return Net(5)

ready = Net()
number = 3

def broken():
    raise KeyError("two\\nlines")

def needs(width):
    return Net(width)

def leaves():
    raise SystemExit(3)

def gives_text():
    return "text"
"""
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
INPUTS = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def nets(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, make_card):
    folder = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(0)
    model = build("residual", 10)
    save_zoo(folder, make_card("tiny-0.50", noise_sigma=0.5), model, "float32")
    save_zoo(folder, make_card("other"), model, "float32")
    return folder


def refused(spec, message, kind=ModelError, **options):
    """Loading fails with one line that matches, and the line names a remedy."""
    with pytest.raises(kind, match=message) as caught:
        load_model(spec, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert ":" in text
    return text


# Cards.


def test_shipped_name_card_and_folder_are_the_same_model(zoo, tmp_path):
    by_name = load_model("tiny-0.50", zoo=zoo, classes=10)
    by_card = load_model(str(zoo / "tiny-0.50.json"))
    save_zoo(tmp_path, replace(by_name.card, sha256=""), unfolded(zoo), "float32")
    by_folder = load_model(str(tmp_path))
    assert by_name.name == "tiny-0.50"
    assert by_name.noise_sigma == 0.5
    assert by_name.input_range == (0.0, 1.0)
    assert by_name.checksum == by_card.checksum == by_folder.checksum
    assert by_name.checksum != load_model("other", zoo=zoo).checksum  # the same weights, another name
    assert by_folder.spec == str(tmp_path)
    assert by_folder.card == by_name.card
    assert torch.equal(by_name.module(IMAGES), load_zoo("tiny-0.50", zoo)(IMAGES))
    assert not any(p.requires_grad for p in by_name.module.parameters())


def unfolded(zoo):
    from safetensors.torch import load_file

    model = build("residual", 10)
    model.load_state_dict(load_file(zoo / "tiny-0.50.safetensors"))
    return model


def test_cards_refuse_what_they_bring_themselves(zoo, tmp_path):
    refused("other", "brings its own weights: give no others", zoo=zoo, weights=tmp_path / "w.pt")
    refused("other", "normalises inside: give no other", zoo=zoo, normalize="0/1")
    refused("other", "tells 10 classes apart, the data have 100: choose", zoo=zoo, classes=100)
    refused(str(zoo), r"holds 2 models \(other, tiny-0.50\): name one card")
    refused(str(tmp_path), "holds no model")
    refused(str(tmp_path / "none.json"), "none.json cannot be read .*the models of this folder are none")


def test_a_folder_may_hold_other_json_files(zoo, tmp_path, make_card):
    save_zoo(tmp_path, make_card(), unfolded(zoo))
    (tmp_path / "history.json").write_text("[]")
    assert load_model(str(tmp_path)).name == "tiny"


# Python files and modules.


def test_file_factory_and_ready_module(nets):
    wide = load_model(f"{nets}:wide")
    assert wide.name == "nets:wide"
    assert wide.card is None
    assert wide.noise_sigma is None
    assert wide.module(INPUTS).shape == (3, 5)
    assert torch.equal(wide.module(INPUTS), wide.module(INPUTS)), "dropout is off"
    assert not any(p.requires_grad for p in wide.module.parameters())
    assert load_model(f"{nets}:ready").module(INPUTS).shape == (3, 4)
    assert load_model(f"{nets}:Net").module(INPUTS).shape == (3, 4)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("broken", r"KeyError: 'two\\nlines' \(line 21\): a factory is called without arguments"),
        ("needs", r"TypeError: needs\(\) missing 1 required"),
        ("leaves", "SystemExit: 3"),
        ("gives_text", "gives a value of type str: return a torch.nn.Module"),
        ("number", "gives a value of type int"),
        ("absent", "there is no 'absent': it has Net, wide"),
    ],
)
def test_bad_factories_are_refused(nets, factory, message):
    refused(f"{nets}:{factory}", message)


def test_files_that_do_not_run_are_refused(tmp_path):
    refused(
        str(tmp_path / "absent.py") + ":f",
        r"absent.py cannot be read \(No such file or directory\): give the path of a Python file",
    )
    refused(str(tmp_path / "absent.py"), "does not name a factory: write file.py:factory")
    for number, (source, message) in enumerate(
        [
            ("x = 1\nx / 0\n", r"ZeroDivisionError: division by zero \(line 2\): mend the file"),
            ("def f(:\n", r"SyntaxError: .*line 1"),
            ("import not_there_at_all\n", "ModuleNotFoundError: No module named 'not_there_at_all'"),
            ("raise SystemExit\n", "SystemExit"),
        ]
    ):
        path = tmp_path / f"bad{number}.py"
        path.write_text(source)
        before = set(sys.modules)
        refused(f"{path}:f", message)
        assert set(sys.modules) == before


def test_two_files_have_each_their_own_neighbour(tmp_path):
    path, loaded = list(sys.path), []
    for width in (2, 3):
        folder = tmp_path / str(width)
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "__init__.py").write_text("from parts.size import WIDTH\n")
        (folder / "parts" / "size.py").write_text(f"WIDTH = {width}\n")
        (folder / "net.py").write_text(
            "from parts import WIDTH\nfrom torch import nn\n\n"
            "class Net(nn.Module):\n    def forward(self, x):\n        return x[:, :WIDTH]\n"
        )
        loaded.append(load_model(f"{folder / 'net.py'}:Net").module)
        assert sys.path == path
        assert not {"net", "parts", "parts.size"} & set(sys.modules)
        assert not list(folder.glob("__pycache__/net*"))
    assert [module(torch.rand(1, 4)).shape[1] for module in loaded] == [2, 3]


def test_module_factory(nets, monkeypatch):
    nets.rename(nets.with_name("certmix_test_nets.py"))
    monkeypatch.syspath_prepend(str(nets.parent))
    loaded = load_model("certmix_test_nets:wide")
    assert loaded.module(INPUTS).shape == (3, 5)
    assert loaded.name == "certmix_test_nets:wide"
    refused("certmix_test_nets:absent.deeper", "there is no 'absent.deeper'")
    refused("no_such_package.nets:wide", "No module named 'no_such_package': install the package, or give")
    del sys.modules["certmix_test_nets"]


def test_module_checksum_sees_the_file_that_defines_the_factory(tmp_path, monkeypatch):
    package = tmp_path / "certmix_test_package"
    package.mkdir()
    (package / "__init__.py").write_text("from certmix_test_package.inner import Net\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sums = set()
    for scale in (1, 2):
        (package / "inner.py").write_text(
            "from torch import nn\n\nclass Net(nn.Module):\n"
            f"    def forward(self, x):\n        return {scale} * x\n"
        )
        sums.add(load_model("certmix_test_package:Net").checksum)
        for name in [name for name in sys.modules if name.startswith("certmix_test_package")]:
            del sys.modules[name]
    assert len(sums) == 2


@pytest.mark.parametrize(
    "spec",
    ["", "tiny-0.5", "no/such/folder", "a:b:c", "timm:", "robustbench:", "net.onnx", "x" * 9999, "~nobody"],
)
def test_unknown_specs_list_the_forms(zoo, spec):
    text = refused(spec, "is unknown: .*use one of other, tiny-0.50, a card or folder", zoo=zoo)
    assert ("did you mean tiny-0.50" in text) == (spec == "tiny-0.5")


def test_bare_weights_are_not_a_model():
    refused("w.safetensors", "holds weights without a model: name a model, such as .* and give w.safetensors")


def test_unusable_device_is_refused(nets):
    refused(f"{nets}:wide", "on device nowhere: RuntimeError.*use --device cpu", device="nowhere")


# Exported programs.


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "small.pt2"
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 4)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.rand(2, 3, 2, 2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path, model


def test_exported_program(exported):
    path, model = exported
    loaded = load_model(str(path), normalize="0.5/0.5")
    assert loaded.name == "small"
    assert torch.allclose(loaded.module(INPUTS), model(INPUTS * 2 - 1), atol=1e-5)
    loaded.module.eval()
    loaded.module.train()
    assert torch.allclose(loaded.module(INPUTS), model(INPUTS * 2 - 1), atol=1e-5)
    assert not any(p.requires_grad for p in loaded.module.parameters())
    inputs = INPUTS.clone().requires_grad_(True)
    loaded.module(inputs).sum().backward()
    assert inputs.grad.abs().sum() > 0
    refused(str(path), "brings its own weights: give no others", weights=path)


def test_bad_exports_are_refused(tmp_path):
    path, heard = tmp_path / "bad.pt2", []
    refused(str(path), "bad.pt2 cannot be read")
    path.write_bytes(b"not an archive")
    log, handler = logging.getLogger("torch.export"), logging.Handler()
    handler.emit = heard.append
    log.addHandler(handler)
    refused(str(path), "bad.pt2: .*: export it again with this version of torch")
    log.removeHandler(handler)
    assert heard == []  # torch's own traceback is not shown


def test_a_factory_may_give_an_exported_program(exported, tmp_path):
    path, model = exported
    (tmp_path / "net.py").write_text(
        f"import torch\n\ndef net():\n    return torch.export.load({str(path)!r}).module()\n"
    )
    loaded = load_model(f"{tmp_path / 'net.py'}:net")
    assert torch.allclose(loaded.module(INPUTS), model(INPUTS), atol=1e-5)
    assert not any(part.training for part in loaded.module.eval().modules())


# Modules of a program.


def test_a_module_is_taken_as_it_is():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(0.5))
    loaded = wrap_model(net, normalize="0.5/0.5")
    assert loaded.name == loaded.spec == "Sequential"
    assert loaded.card is None
    assert loaded.input_range is None
    assert torch.allclose(loaded.module(INPUTS), net[1]((INPUTS * 2 - 1).flatten(1)))
    assert wrap_model(net, name="mine").name == "mine"
    plain = wrap_model(net).checksum
    assert plain == wrap_model(net).checksum != loaded.checksum
    net[2] = nn.GELU()
    other = wrap_model(net).checksum
    net[1].bias += 1
    assert len({plain, other, wrap_model(net).checksum}) == 3


def test_a_module_of_the_same_look_and_another_forward_has_another_checksum():
    def plus():
        class Net(nn.Module):
            def forward(self, x):
                return x + 1

        return Net()

    def times():
        class Net(nn.Module):
            def forward(self, x):
                return x * 2

        return Net()

    assert repr(plus()) == repr(times())
    assert wrap_model(plus()).checksum != wrap_model(times()).checksum


# Weights.


@pytest.fixture
def state(nets):
    state = load_model(f"{nets}:wide").module.state_dict()
    return {key: torch.full_like(value, 0.5) for key, value in state.items()}


@pytest.mark.parametrize(
    "nest", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}]
)
@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "1.module.", "model.net.0."],
)
def test_weights_are_found(nets, state, tmp_path, nest, prefix):
    path = tmp_path / "w.pth"
    torch.save(nest({prefix + key: value for key, value in state.items()}), path)
    loaded = load_model(f"{nets}:wide", weights=path)
    assert torch.allclose(loaded.module(INPUTS), 0.5 * INPUTS.sum((1, 2, 3))[:, None] + 0.5)


def test_safetensors_give_the_same_model(nets, state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")
    sums = {
        load_model(f"{nets}:wide", weights=tmp_path / f"w.{kind}").checksum for kind in ("safetensors", "pt")
    }
    assert len(sums) == 1
    assert sums != {load_model(f"{nets}:wide").checksum}


def test_a_model_may_have_a_part_called_module(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.module = nn.Linear(2, 2)\n    def forward(self, x):\n        return self.module(x)\n"
    )
    torch.save({"module.weight": torch.eye(2), "module.bias": torch.zeros(2)}, tmp_path / "w.pt")
    loaded = load_model(f"{tmp_path / 'net.py'}:Net", weights=tmp_path / "w.pt")
    assert torch.equal(loaded.module(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]))


def test_weights_that_do_not_fit_name_three_keys_at_most(nets, state, tmp_path):
    extra = {f"extra.{letter}": torch.zeros(1) for letter in "abcd"}
    save_file({"out.weight": torch.zeros(7, 12), **extra}, tmp_path / "w.safetensors")
    text = refused(f"{nets}:wide", "do not fit the model", weights=tmp_path / "w.safetensors")
    assert "1 missing (out.bias)" in text
    assert "4 unexpected (extra.a, extra.b, extra.c, ...)" in text
    assert "extra.d" not in text
    assert "1 of another shape (out.weight (7, 12) for (5, 12))" in text


def test_batch_counters_may_be_missing(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef net():\n    return nn.BatchNorm1d(2)\n")
    state = {key: torch.ones(2) for key in ("weight", "bias", "running_mean", "running_var")}
    torch.save(state, tmp_path / "w.pt")
    module = load_model(f"{tmp_path / 'net.py'}:net", weights=tmp_path / "w.pt").module
    assert torch.allclose(module(torch.ones(1, 2)), torch.ones(1, 2))


DOWNLOADS = (
    (b"", "it is empty: download it again$"),
    (b"<!DOCTYPE html><html>quota exceeded</html>", "it is a web page: download it again$"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "it is a pointer of Git LFS: "),
)


@pytest.mark.parametrize(("content", "found"), DOWNLOADS)
def test_exports_that_are_failed_downloads_are_named(content, found, tmp_path):
    (tmp_path / "net.pt2").write_bytes(content)
    refused(str(tmp_path / "net.pt2"), f"cannot be read: {found}")


def test_half_precision_weights_run_on_float32_inputs(nets, tmp_path):
    nets.write_text(nets.read_text() + "\ndef half():\n    return Net().half()\n")
    loaded = load_model(f"{nets}:half")
    whole = load_model(f"{nets}:Net").module
    torch.testing.assert_close(call_model(loaded.module, INPUTS).float(), whole(INPUTS), rtol=0, atol=5e-3)
    mix = MixedClassifier(loaded.module, whole, 0.76)
    assert mix(INPUTS).dtype == torch.float32


def test_unreadable_weights_are_refused(nets, tmp_path):
    cases = [
        (
            "whole.pt",
            lambda path: torch.save({"model": nn.Linear(2, 2)}, path),
            r"refused \(it holds torch\.nn",
        ),
        ("none.pt", lambda path: torch.save({"epoch": 3}, path), "hold no state dict"),
        ("list.pt", lambda path: torch.save([1, 2], path), "hold no state dict"),
        ("empty.pt", lambda path: torch.save({}, path), "hold no state dict"),
        ("noise.pt", lambda path: path.write_bytes(b"not a checkpoint"), "refused|cannot be read"),
        ("noise.safetensors", lambda path: path.write_bytes(b"\x00" * 20), "cannot be read"),
        ("w.npz", lambda path: path.write_bytes(b""), "unknown kind: give a .safetensors"),
        ("absent.pt", lambda path: None, "cannot be read .No such file"),
        *(
            (f"{number}.{kind}", partial(Path.write_bytes, data=content), f"cannot be read: {found}")
            for kind in ("pt", "safetensors", "pth", "tar")
            for number, (content, found) in enumerate(DOWNLOADS)
        ),
    ]
    for name, write, message in cases:
        write(tmp_path / name)
        refused(f"{nets}:wide", message, weights=tmp_path / name)


# Normalisation.


def test_normalisation_by_channel_for_any_channel_first_shape(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef net():\n    return nn.Identity()\n")
    spec = f"{tmp_path / 'net.py'}:net"
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    module = load_model(spec, normalize="0.1, 0.2,0.3/0.5,1,2").module
    for shape in [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2)]:
        inputs = torch.rand(shape)
        view = (3,) + (1,) * (len(shape) - 2)
        assert torch.allclose(module(inputs), (inputs - mean.view(view)) / std.view(view))
    assert module(torch.rand(2, 3).double()).dtype == torch.float64
    with pytest.raises(
        ModelError, match=r"shape \(2, 4\) and the normalisation names 3 channels: give one mean"
    ):
        module(torch.rand(2, 4))
    single = load_model(spec, normalize="0.5/0.25").module
    assert torch.allclose(single(torch.full((2, 4, 3), 1.0)), torch.tensor(2.0))
    assert torch.allclose(single(torch.ones(2, 7)), torch.tensor(2.0))
    mixed = load_model(spec, normalize="0.1,0.2,0.3/2").module
    assert torch.allclose(mixed(torch.zeros(1, 3)), -mean / 2)


@pytest.mark.parametrize(
    "text",
    ["", "0.5", "/", "a/b", "0.5/0", "0.5/-1", "0.5/nan", "inf/1", "1/1/1", "0,0/1,1,1", "0,/1", "0 0/1"],
)
def test_bad_normalisations_are_refused(nets, text):
    refused(
        f"{nets}:wide", f"normalize = {re.escape(repr(text))}.*write MEAN/STD", ParameterError, normalize=text
    )


@given(st.text(alphabet="0123456789.,/-e naif", max_size=12))
def test_any_text_parses_or_is_refused_on_purpose(text):
    try:
        mean, std = parse_normalize(text)
    except CertmixError:
        return
    assert all(value > 0 for value in std)
    assert len(mean) == len(std) or 1 in (len(mean), len(std))


# Checksums.


def test_checksum_follows_weights_code_and_normalisation(nets, state, tmp_path):
    spec = f"{nets}:wide"
    plain = load_model(spec).checksum
    assert re.fullmatch("[0-9a-f]{64}", plain)
    assert plain == load_model(spec).checksum
    save_file(state, tmp_path / "w.safetensors")
    sums = [plain, load_model(spec, weights=tmp_path / "w.safetensors").checksum]
    sums += [load_model(spec, normalize=text).checksum for text in ("0/1", "0.5/1", "0/0.5")]
    nets.write_text(SOURCE + "\n# another comment\n")
    sums.append(load_model(spec).checksum)
    assert len(set(sums)) == len(sums)
    assert load_model(spec, normalize="0.50/1").checksum == load_model(spec, normalize="0.5/1.0").checksum
    nets.rename(nets.with_name("moved.py"))
    assert load_model(f"{nets.with_name('moved.py')}:wide").checksum == load_model_sum(SOURCE, tmp_path)


def load_model_sum(source, tmp_path):
    """The checksum of the source with the comment, from yet another place: paths do not enter it."""
    (tmp_path / "deeper").mkdir()
    path = tmp_path / "deeper" / "nets.py"
    path.write_text(source + "\n# another comment\n")
    return load_model(f"{path}:wide").checksum


def test_checksum_sees_names_dtypes_and_shapes(tmp_path):
    def checksum(key, value):
        (tmp_path / "net.py").write_text(
            "import pathlib, torch\nfrom torch import nn\n\ndef net():\n    model = nn.Module()\n"
            "    for key, value in torch.load(pathlib.Path(__file__).with_name('b.pt')).items():\n"
            "        model.register_buffer(key, value)\n    return model\n"
        )
        torch.save({key: value}, tmp_path / "b.pt")
        return load_model(f"{tmp_path / 'net.py'}:net").checksum

    zeros = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(())]
    sums = {checksum(key, value) for key in ("a", "b") for value in zeros}
    assert len(sums) == 8
    strided = torch.arange(6.0).view(2, 3).T
    assert checksum("a", strided) == checksum("a", strided.contiguous())
    checksum("a", torch.zeros(3, dtype=torch.bfloat16))


def test_export_checksum_is_of_the_file(exported, tmp_path):
    path, _ = exported
    copy = tmp_path / "copy.pt2"
    copy.write_bytes(path.read_bytes())
    assert load_model(str(copy)).checksum == load_model(str(path)).checksum
    assert hashlib.sha256(path.read_bytes()).hexdigest() != load_model(str(path)).checksum


def test_declared_files_are_named_by_their_digests_and_joined_by_name(tmp_path):
    paths, digests = [], []
    for folder, content in (("one", b"first"), ("two", b"second")):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "cfg.json")
        paths[-1].write_bytes(content)
        digests.append(hashlib.sha256(content).hexdigest())
    model = nn.Linear(2, 3)
    assert wrap_model(model, files=paths[:1]).parts["file cfg.json"] == digests[0]
    assert wrap_model(model, files=paths).parts["file cfg.json"] == ", ".join(digests)


def test_a_card_of_another_number_of_classes_has_the_remedy_that_fits(zoo):
    refused("other", "the data have 7: if 3 of them have no input here, name all 10", zoo=zoo, classes=7)
    refused("other", "the data have 11: no label is 0", zoo=zoo, classes=11, no_label_zero=True)
    refused("other", "the data have 11: choose a model", zoo=zoo, classes=11)


FACTORIES = """
import torch
from torch import nn

def drawn():
    return nn.Linear(3, 2)

def seeded():
    torch.manual_seed(0)
    return nn.Linear(3, 2)

def stateless():
    return nn.Flatten()

drawn_at_import = nn.Linear(3, 2)
calls = []

def own_generator():
    net, generator = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in net.parameters():
            value.normal_(generator=generator)
    return net

def lazy():
    return nn.LazyLinear(2)
"""


@pytest.mark.parametrize(
    ("factory", "drawn"),
    [
        ("drawn", True), ("drawn_at_import", True), ("seeded", False), ("own_generator", False),
        ("stateless", False),
    ],
)  # fmt: skip
def test_a_factory_that_draws_its_weights_is_pointed_out(tmp_path, factory, drawn):
    (tmp_path / "nets.py").write_text(FACTORIES)
    said, spec = [], f"{tmp_path / 'nets.py'}:{factory}"
    load_model(spec, say=said.append)
    assert len(said) == drawn
    assert all("--robust-weights" in line and "seed the factory" in line for line in said)
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "w.safetensors")
    if factory.startswith("drawn"):
        load_model(spec, weights=tmp_path / "w.safetensors", say=said.append)
        assert len(said) == 1


def test_lazy_layers_are_refused_in_one_line(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORIES)
    for say in (None, print):
        with pytest.raises(
            ModelError, match=r"^parameter (weight|bias) is of a lazy layer, .*run the model once"
        ):
            load_model(f"{tmp_path / 'nets.py'}:lazy", say=say)


def test_looking_for_drawn_weights_leaves_the_generator_alone(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(FACTORIES)
    spec, states = f"{tmp_path / 'nets.py'}:drawn", []
    for say in (None, lambda message: None):
        torch.manual_seed(5)
        loaded = load_model(spec, say=say)
        states.append((torch.get_rng_state(), loaded.checksum))
    assert torch.equal(states[0][0], states[1][0]) and states[0][1] == states[1][1]
    said = []
    monkeypatch.setattr("certmix.models.weights.LARGEST", 7)
    load_model(spec, say=said.append)
    assert said == []
