"""Loading by spec: each form, the weights, the normalisation, the checksum, and every refusal."""

import hashlib
import logging
import re
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save, save_file
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.models.architectures import build
from certmix.models.spec import load_model, wrap_model
from certmix.models.zoo import load_zoo, save_zoo
from certmix.radii import Smoothing

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

def needs(width, depth):
    return Net(width)

def leaves():
    raise SystemExit(3)

def gives_text():
    return "text"

def lazy():
    return nn.LazyLinear(2)
"""
INPUTS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
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


def written(path, body, imports="from torch import nn"):
    """Write a file whose `net` gives a model, and return its spec."""
    path.write_text(f"import torch\n{imports}\n\n{body}\n")
    return f"{path}:net"


def refused(spec, message, kind=ModelError, **options):
    """Loading fails with one line that matches, and the line names a remedy."""
    with pytest.raises(kind, match=message) as caught:
        load_model(spec, **options)
    text = str(caught.value)
    assert "\n" not in text and ":" in text
    return text


# Cards.


def test_shipped_name_card_and_folder_are_the_same_model(zoo, tmp_path):
    by_name = load_model("tiny-0.50", zoo=zoo, classes=10)
    by_card = load_model(str(zoo / "tiny-0.50.json"))
    plain = build("residual", 10)
    plain.load_state_dict(load_file(zoo / "tiny-0.50.safetensors"))
    save_zoo(tmp_path, replace(by_name.card, sha256=""), plain, "float32")
    (tmp_path / "history.json").write_text("[]")  # a folder may hold other JSON files
    by_folder = load_model(str(tmp_path))
    assert (by_name.name, by_name.trained_for) == ("tiny-0.50", Smoothing.of(0.5))
    assert by_name.input_range == (0.0, 1.0)
    assert by_name.checksum == by_card.checksum == by_folder.checksum
    assert by_name.checksum != load_model("other", zoo=zoo).checksum  # the same weights, another name
    assert (by_folder.spec, by_folder.card) == (str(tmp_path), by_name.card)
    assert torch.equal(by_name.module(INPUTS), load_zoo("tiny-0.50", zoo)(INPUTS))
    assert not any(p.requires_grad for p in by_name.module.parameters())


def test_cards_refuse_what_they_bring_themselves(zoo, tmp_path):
    refused("other", "brings its own weights: give no others", zoo=zoo, weights=tmp_path / "w.pt")
    refused("other", "normalises inside: give no other", zoo=zoo, normalize="0/1")
    assert load_model("other", zoo=zoo, classes=7).card is not None  # more classes than the data show
    refused("other", "the data have 11: no label is 0", zoo=zoo, classes=11, no_label_zero=True)
    refused("other", "tells 10 classes apart, the data have 100: choose a model", zoo=zoo, classes=100)
    refused(str(zoo), r"holds 2 models \(other, tiny-0.50\): name one card")
    refused(str(tmp_path), "holds no model")
    refused(str(tmp_path / "none.json"), "none.json cannot be read .*the models of this folder are none")


# Python files and modules.


def test_file_factory_and_ready_module(nets):
    wide = load_model(f"{nets}:wide")
    assert (wide.name, wide.card, wide.trained_for) == ("nets:wide", None, None)
    assert wide.module(INPUTS).shape == (3, 5)
    assert torch.equal(wide.module(INPUTS), wide.module(INPUTS)), "dropout is off"
    assert not any(p.requires_grad for p in wide.module.parameters())
    for factory in ("ready", "Net"):
        assert load_model(f"{nets}:{factory}").module(INPUTS).shape == (3, 4)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("broken", r"KeyError: 'two\\nlines' \(line 21\): a factory is called without arguments"),
        ("needs", r"TypeError: needs\(\) missing 2 required"),
        ("leaves", "SystemExit: 3"),
        ("gives_text", "gives a value of type str: give a torch module, a classifier"),
        ("number", "gives a value of type int"),
        ("absent", "there is no 'absent': it has Net, wide"),
        ("lazy", "parameter (weight|bias) is of a lazy layer, .*run the model once"),
    ],
)
def test_bad_factories_are_refused(nets, factory, message):
    refused(f"{nets}:{factory}", message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nx / 0\n", r"ZeroDivisionError: division by zero \(line 2\): mend the file"),
        ("def f(:\n", r"SyntaxError: .*line 1"),
        ("import not_there_at_all\n", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("raise SystemExit\n", "SystemExit"),
        (None, r"bad.py cannot be read \(No such file or directory\): give the path of a Python file"),
    ],
)
def test_files_that_do_not_run_are_refused(tmp_path, source, message):
    path, before = tmp_path / "bad.py", set(sys.modules)
    if source is not None:
        path.write_text(source)
    refused(f"{path}:f", message)
    refused(str(path), "does not name a factory: write file.py:factory")
    assert set(sys.modules) == before


def test_two_files_have_each_their_own_neighbour(tmp_path):
    path, loaded = list(sys.path), []
    for width in (2, 3):
        folder = tmp_path / str(width)
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "__init__.py").write_text("from parts.size import WIDTH\n")
        (folder / "parts" / "size.py").write_text(f"WIDTH = {width}\n")
        net = "class net(nn.Module):\n    def forward(self, x):\n        return x[:, :WIDTH]"
        spec = written(folder / "net.py", net, "from parts import WIDTH\nfrom torch import nn")
        loaded.append(load_model(spec).module)
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


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "tiny-0.5",
        "no/such/folder",
        "a:b:c",
        "timm:",
        "robustbench:",
        "hf:",
        "net.onxx",
        "x" * 9999,
        "~nobody",
    ],
)
def test_unknown_specs_list_the_forms(zoo, spec):
    text = refused(spec, "is unknown: .*use one of other, tiny-0.50, a card or folder", zoo=zoo)
    assert ("did you mean tiny-0.50" in text) == (spec == "tiny-0.5")


def test_bare_weights_and_unusable_devices_are_refused(nets):
    path = nets.with_name("w.safetensors")
    refused(str(path), "cannot be read .No such file")
    save_file({"weight": torch.zeros(1)}, path)
    refused(str(path), f"holds weights without a model: name a model, such as .* and give {path}")
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


def test_exported_program(exported, tmp_path):
    path, model = exported
    loaded = load_model(str(path), normalize="0.5/0.5")
    assert loaded.name == "small"
    for change in (loaded.module.eval, loaded.module.train):
        change()
        torch.testing.assert_close(loaded.module(INPUTS), model(INPUTS * 2 - 1), rtol=0, atol=1e-5)
    assert not any(p.requires_grad for p in loaded.module.parameters())
    inputs = INPUTS.clone().requires_grad_(True)
    loaded.module(inputs).sum().backward()
    assert inputs.grad.abs().sum() > 0
    refused(str(path), "brings its own weights: give no others", weights=path)
    made = load_model(written(tmp_path / "net.py", f"net = torch.export.load({str(path)!r}).module()")).module
    torch.testing.assert_close(made(INPUTS), model(INPUTS), rtol=0, atol=1e-5)
    assert not any(part.training for part in made.eval().modules())


DOWNLOADS = (
    (b"", "it is empty: download it again$"),
    *(
        (start + b"quota exceeded", "it is a web page: download it again, by the link to the file itself$")
        for start in (
            b"<!DOCTYPE html><html>",
            b"\n <HTML>",
            b"\xef\xbb\xbf<!doctype html>",
            b"<!-- login -->",
        )
    ),
    (b'{"error": "Access denied"}', "it is the answer of a server that refused the download"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "it is a pointer of Git LFS: "),
)


def test_bad_exports_are_refused(tmp_path):
    path, heard = tmp_path / "bad.pt2", []
    refused(str(path), "bad.pt2 cannot be read")
    for content, found in DOWNLOADS:
        path.write_bytes(content)
        refused(str(path), f"cannot be read: {found}")
    path.write_bytes(b"not an archive")
    log, handler = logging.getLogger("torch.export"), logging.Handler()
    handler.emit = heard.append
    log.addHandler(handler)
    refused(str(path), "bad.pt2: .*: export it again with this version of torch")
    log.removeHandler(handler)
    assert heard == []  # torch's own traceback is not shown


# Modules of a program.


def test_a_module_is_taken_as_it_is():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(0.5))
    loaded = wrap_model(net, normalize="0.5/0.5")
    assert (loaded.name, loaded.spec, loaded.card, loaded.input_range) == ("Sequential",) * 2 + (None,) * 2
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


def test_weights_are_found(nets, state, tmp_path):
    path = tmp_path / "w.pth"
    for nest, prefix in (
        ("state_dict", ""),
        ("model", "module._orig_mod."),
        ("", "1.module."),
        ("", "model.net.0."),
    ):
        named = {prefix + key: value for key, value in state.items()}
        torch.save({nest: named, "epoch": 3} if nest else named, path)
        loaded = load_model(f"{nets}:wide", weights=path)
        assert torch.allclose(loaded.module(INPUTS), 0.5 * INPUTS.sum((1, 2, 3))[:, None] + 0.5)
    spec = written(tmp_path / "net.py", "net = nn.ModuleDict({'module': nn.Linear(2, 2)})")  # no prefix
    torch.save({"module.weight": torch.eye(2), "module.bias": torch.zeros(2)}, path)
    loaded = load_model(spec, weights=path)
    assert torch.equal(loaded.module["module"](torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]))
    spec = written(tmp_path / "norm.py", "net = nn.BatchNorm1d(2)")  # its counter may be missing
    torch.save({key: torch.ones(2) for key in ("weight", "bias", "running_mean", "running_var")}, path)
    assert torch.allclose(load_model(spec, weights=path).module(torch.ones(1, 2)), torch.ones(1, 2))


def test_averaged_weights_are_taken_first_and_it_is_said(nets, state, tmp_path):
    path, said = tmp_path / "checkpoint.pth.tar", []
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    wrapped = {
        "arch": "wide",
        "state_dict": other,
        "state_dict_ema": {f"module.{k}": v for k, v in state.items()},
    }
    torch.save(wrapped, path)
    loaded = load_model(f"{nets}:wide", weights=path, say=said.append)
    assert torch.allclose(loaded.module(INPUTS), 0.5 * INPUTS.sum((1, 2, 3))[:, None] + 0.5)
    assert said == [f"Note: weights {path}: 'state_dict_ema' is taken, and state_dict left"]
    parallel = nn.DataParallel(load_model(f"{nets}:wide").module)
    torch.save(parallel.state_dict(), path)
    load_model(f"{nets}:wide", weights=path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whole_models_in_a_torch_file_get_their_remedy(nets, tmp_path):
    path = tmp_path / "whole.pt"
    torch.save(nn.DataParallel(nn.Linear(12, 5)), path)
    for weights in ({"weights": path}, {}):
        text = refused(
            f"{nets}:wide" if weights else str(path), "DataParallel, which only code can restore", **weights
        )
        assert "in a factory, file.py:factory, which runs its code" in text
    torch.jit.save(torch.jit.script(nn.Linear(12, 5)), path)
    refused(f"{nets}:wide", "TorchScript program: load it by torch.jit.load in a factory", weights=path)


def test_weights_that_do_not_fit_name_three_keys_at_most(nets, tmp_path):
    extra = {f"extra.{letter}": torch.zeros(1) for letter in "abcd"}
    save_file({"out.weight": torch.zeros(7, 12), **extra}, tmp_path / "w.safetensors")
    text = refused(f"{nets}:wide", "do not fit the model", weights=tmp_path / "w.safetensors")
    assert "1 missing (out.bias)" in text
    assert "4 unexpected (extra.a, extra.b, extra.c, ...)" in text and "extra.d" not in text
    assert "1 of another shape (out.weight (7, 12) for (5, 12))" in text


def _claiming(path, kind):
    """Write 1,000 numbers whose header claims 2^30."""
    state, few, many = {"weight": torch.arange(1000.0)}, b"M\xe8\x03", b"J\0\0\0\x40"
    if kind == "safetensors":
        data = save(state).replace(b"[1000]", b"[1073741824]").replace(b"[0,4000]", b"[0,4294967296]")
        path.write_bytes((len(data) - 4008).to_bytes(8, "little") + data[8:])
        return
    torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    if kind == "pickles":
        path.write_bytes(path.read_bytes().replace(few, many))
        return
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data.replace(few, many) if name.endswith(".pkl") else data)


BAD_WEIGHTS = {
    **{
        f"more-in-{kind}.{end}": (partial(_claiming, kind=kind), message)
        for kind, end, message in [
            ("zip", "pt", "does not match expected size"),
            ("pickles", "pt", "wrong byte size"),
            ("safetensors", "safetensors", "cannot be read .SafetensorError"),
        ]
    },
    "whole.pt": (partial(torch.save, {"model": nn.Linear(2, 2)}), r"refused \(it holds torch\.nn"),
    "long.pt": (
        partial(Path.write_bytes, data=b"\x80\x02c" + 999 * b"m\x01" + b"\nX\n."),
        r"\A[^\x01]*it holds m[^\x01]{1,500}\Z",
    ),
    "none.pt": (partial(torch.save, {"epoch": 3}), "hold no state dict"),
    "list.pt": (partial(torch.save, [1, 2]), "hold no state dict"),
    "empty.pt": (partial(torch.save, {}), "hold no state dict"),
    "noise.pt": (partial(Path.write_bytes, data=b"not a checkpoint"), "refused|cannot be read"),
    "noise.safetensors": (partial(Path.write_bytes, data=bytes(20)), "cannot be read"),
    "w.npz": (partial(Path.write_bytes, data=b""), "unknown kind: give a .safetensors"),
    "absent.pt": (lambda path: None, "cannot be read .No such file"),
    **{
        f"{number}.{kind}": (partial(Path.write_bytes, data=content), f"cannot be read: {found}")
        for kind in ("pt", "safetensors")
        for number, (content, found) in enumerate(DOWNLOADS)
    },
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_unreadable_weights_are_refused(nets, tmp_path, name):
    write, message = BAD_WEIGHTS[name]
    write(tmp_path / name)
    refused(f"{nets}:wide", message, weights=tmp_path / name)


# Normalisation.


def test_normalisation_by_channel_for_any_channel_first_shape(tmp_path):
    spec = written(tmp_path / "net.py", "net = nn.Identity()")
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    module = load_model(spec, normalize="0.1, 0.2,0.3/0.5,1,2").module
    for shape in [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2)]:
        inputs, view = torch.rand(shape), (3,) + (1,) * (len(shape) - 2)
        assert torch.allclose(module(inputs), (inputs - mean.view(view)) / std.view(view))
    assert module(torch.rand(2, 3).double()).dtype == torch.float64
    with pytest.raises(ModelError, match=r"shape \(2, 4\) and the normalisation names 3 channels: give one"):
        module(torch.rand(2, 4))
    single = load_model(spec, normalize="0.5/0.25").module
    assert torch.allclose(single(torch.full((2, 4, 3), 1.0)), torch.tensor(2.0))
    mixed = load_model(spec, normalize="0.1,0.2,0.3/2").module
    assert torch.allclose(mixed(torch.zeros(1, 3)), -mean / 2)


def test_bad_normalisations_are_refused(nets):
    for text in [
        "",
        "0.5",
        "/",
        "a/b",
        "0.5/0",
        "0.5/-1",
        "0.5/nan",
        "inf/1",
        "1/1/1",
        "0,0/1,1,1",
        "0,/1",
        "0 0/1",
    ]:
        words = f"normalize = {re.escape(repr(text))}.*write MEAN/STD"
        refused(f"{nets}:wide", words, ParameterError, normalize=text)


# Checksums.


def test_checksum_follows_weights_code_and_normalisation(nets, state, tmp_path):
    spec = f"{nets}:wide"
    plain = load_model(spec).checksum
    assert re.fullmatch("[0-9a-f]{64}", plain) and plain == load_model(spec).checksum
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")
    same, weighed = (load_model(spec, weights=tmp_path / f"w.{k}").checksum for k in ("safetensors", "pt"))
    assert same == weighed
    sums = [plain, weighed]
    sums += [load_model(spec, normalize=text).checksum for text in ("0/1", "0.5/1", "0/0.5")]
    nets.write_text(SOURCE + "\n# another comment\n")
    sums.append(load_model(spec).checksum)
    assert len(set(sums)) == len(sums)
    assert load_model(spec, normalize="0.50/1").checksum == load_model(spec, normalize="0.5/1.0").checksum
    moved = tmp_path / "deeper" / "moved.py"  # paths do not enter it
    moved.parent.mkdir()
    nets.rename(moved)
    assert load_model(f"{moved}:wide").checksum == sums[-1]


def test_checksum_sees_names_dtypes_and_shapes():
    def checksum(key, value):
        model = nn.Module()
        model.register_buffer(key, value)
        return wrap_model(model).checksum

    zeros = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(())]
    assert len({checksum(key, value) for key in ("a", "b") for value in zeros}) == 8
    strided = torch.arange(6.0).view(2, 3).T
    assert checksum("a", strided) == checksum("a", strided.contiguous())
    checksum("a", torch.zeros(3, dtype=torch.bfloat16))


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


FACTORIES = """
import torch
from torch import nn

def drawn():
    return nn.Linear(3, 2)

drawn_at_import, stateless = nn.Linear(3, 2), nn.Flatten()

def own_generator():
    net, generator = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in net.parameters():
            value.normal_(generator=generator)
    return net
"""


@pytest.mark.parametrize("factory", ["drawn", "drawn_at_import", "own_generator", "stateless"])
def test_a_factory_that_draws_its_weights_is_pointed_out(nets, tmp_path, factory, monkeypatch):
    nets.write_text(FACTORIES)
    said, sums, spec, drawn = [], [], f"{nets}:{factory}", factory.startswith("drawn")
    for say in (None, said.append):  # looking for drawn weights leaves the generator alone
        torch.manual_seed(5)
        sums.append((load_model(spec, say=say).checksum, torch.get_rng_state().tolist()))
    assert sums[0] == sums[1] and len(said) == drawn
    assert all("--robust-weights" in line and "seed the factory" in line for line in said)
    if drawn:
        save_file(nn.Linear(3, 2).state_dict(), tmp_path / "w.safetensors")
        load_model(spec, weights=tmp_path / "w.safetensors", say=said.append)
        monkeypatch.setattr("certmix.models.weights.LARGEST", 7)
        load_model(spec, say=said.append)
        assert len(said) == 1
