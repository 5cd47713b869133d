"""timm, torchvision and RobustBench, by stand-ins that record how they are called."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from certmix.errors import ModelError
from certmix.models.spec import load_model

INPUTS = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))


class Sums(nn.Module):
    """Channel sums, `classes` of them, times a weight."""

    def __init__(self, classes=3):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(classes))

    def forward(self, inputs):
        return inputs.sum((2, 3)) * self.weight


@pytest.fixture
def timm(monkeypatch):
    fake, calls = ModuleType("timm"), []

    def create_model(name, pretrained=False, **settings):
        calls.append((name, pretrained, settings))
        if name != "sums":
            raise RuntimeError(f"Unknown model ({name})")
        model = Sums(settings.get("num_classes", 3))
        model.pretrained_cfg = {"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.5, 2.0)}
        return model.train()

    fake.create_model, fake.calls, fake.__version__ = create_model, calls, "1.0"
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


@pytest.fixture
def robustbench(monkeypatch):
    utils, calls = ModuleType("robustbench.utils"), []

    def load_model(model_name, model_dir="./models", dataset="cifar10", threat_model="Linf"):
        calls.append((model_name, dataset, threat_model, model_dir))
        if model_name != "Good2024":
            raise KeyError(model_name)
        return Sums()

    utils.load_model, utils.calls = load_model, calls
    monkeypatch.setitem(sys.modules, "robustbench", ModuleType("robustbench"))
    monkeypatch.setitem(sys.modules, "robustbench.utils", utils)
    return utils


def test_timm_with_its_own_weights_is_normalised_as_timm_says(timm):
    loaded = load_model("timm:sums", classes=3)
    assert timm.calls == [("sums", True, {})]
    assert (loaded.name, loaded.input_range, loaded.module.training) == ("sums", (0.0, 1.0), False)
    assert not any(p.requires_grad for p in loaded.module.parameters())
    mean, std = torch.tensor([0.5, 0.25, 0.0]), torch.tensor([0.5, 0.5, 2.0])
    expected = ((INPUTS - mean.view(3, 1, 1)) / std.view(3, 1, 1)).sum((2, 3))
    assert torch.allclose(loaded.module(INPUTS), expected)
    plain = load_model("timm:sums", normalize="0/1")
    assert torch.allclose(plain.module(INPUTS), INPUTS.sum((2, 3)))
    assert plain.checksum != loaded.checksum


def test_timm_with_weights_of_ones_own_takes_the_classes_of_the_data_and_refusals(timm, tmp_path):
    torch.save({"state_dict": {"module.weight": torch.full((3,), 2.0)}}, tmp_path / "w.pt")
    loaded = load_model("timm:sums", weights=tmp_path / "w.pt", classes=3)
    assert timm.calls == [("sums", False, {"num_classes": 3})]
    assert torch.allclose(loaded.module(INPUTS), 2 * INPUTS.sum((2, 3)))
    load_model(
        "timm:sums", weights=tmp_path / "w.pt", classes=2
    )  # the data show fewer than the weights are for
    assert timm.calls[-1] == ("sums", False, {"num_classes": 3})
    with pytest.raises(ModelError, match=r"^timm:nets: RuntimeError: Unknown model \(nets\): check the name"):
        load_model("timm:nets")
    timm.create_model = lambda *_, **__: "text"
    with pytest.raises(ModelError, match="timm:sums gives a value of type str"):
        load_model("timm:sums")


@pytest.mark.parametrize(
    ("text", "dataset", "threat"),
    [("Good2024", "cifar10", "Linf"), ("Good2024@cifar100/L2", "cifar100", "L2")],
)
def test_robustbench(robustbench, text, dataset, threat):
    loaded = load_model(f"robustbench:{text}", classes=3)
    assert robustbench.calls[0][:3] == ("Good2024", dataset, threat)
    assert robustbench.calls[0][3].startswith(torch.hub.get_dir())
    assert (loaded.name, loaded.input_range) == ("Good2024", (0.0, 1.0))
    assert torch.allclose(loaded.module(INPUTS), INPUTS.sum((2, 3)))


def test_robustbench_refusals(robustbench, tmp_path):
    for text in ("Good2024@", "Good2024@cifar10", "Good2024@/L2", "@cifar10/L2"):
        with pytest.raises(ModelError, match="write robustbench:MODEL or robustbench:MODEL@dataset/threat"):
            load_model(f"robustbench:{text}")
    with pytest.raises(ModelError, match="robustbench:Bad: KeyError: 'Bad': check the name"):
        load_model("robustbench:Bad")
    with pytest.raises(ModelError, match="brings its own weights: give no others"):
        load_model("robustbench:Good2024", weights=tmp_path / "w.pt")


@pytest.mark.parametrize("library", ["timm", "torchvision", "robustbench"])
def test_a_library_that_is_not_there_names_its_extra(monkeypatch, library):
    for module in (library, f"{library}.utils", f"{library}.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError, match=rf"^.*pip install ('certmix\[)?{library}\b"):
        load_model(f"{library}:any")


@pytest.fixture
def torchvision(monkeypatch):
    fake, models, calls = ModuleType("torchvision"), ModuleType("torchvision.models"), []
    transforms = SimpleNamespace(
        mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0), resize_size=[256], crop_size=[224]
    )

    def get_model(name, weights=None, **settings):
        calls.append((name, weights, settings))
        if name != "sums":
            raise ValueError(f"Unknown model {name}")
        return Sums(settings.get("num_classes", 3)).train()

    kinds = {key: SimpleNamespace(name=key, transforms=lambda: transforms) for key in ("DEFAULT", "OLD")}
    models.get_model, models.get_model_weights, models.calls = get_model, lambda name: kinds, calls
    fake.__version__, fake.models = "0.1", models
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


def test_torchvision_is_normalised_as_its_weights_say_and_sizes_are_said(torchvision, tmp_path):
    said = []
    loaded = load_model("torchvision:sums", classes=3, say=said.append)
    (name, weights, settings) = torchvision.calls[0]
    assert (name, weights.name, settings, loaded.name) == ("sums", "DEFAULT", {}, "sums")
    assert said == [
        "Note: sums: (x - mean) / std, 0.5,0.25,0.0/0.5,0.5,2.0, is applied inside the model",
        "Note: sums: its weights were made for images by --resize 256 --crop 224",
    ]
    mean, std = torch.tensor([0.5, 0.25, 0.0]), torch.tensor([0.5, 0.5, 2.0])
    expected = ((INPUTS - mean.view(3, 1, 1)) / std.view(3, 1, 1)).sum((2, 3))
    assert torch.allclose(loaded.module(INPUTS), expected)
    load_model("torchvision:sums@OLD")
    assert torchvision.calls[-1][1].name == "OLD"
    torch.save({"weight": torch.full((3,), 2.0)}, tmp_path / "w.pt")
    own = load_model("torchvision:sums", weights=tmp_path / "w.pt")
    assert torchvision.calls[-1][1] is None and torch.allclose(own.module(INPUTS), 2 * INPUTS.sum((2, 3)))
    for text, found in (("nets", "ValueError: Unknown model nets"), ("sums@NEW", "KeyError: 'NEW'")):
        with pytest.raises(ModelError, match=f"^torchvision:{text}: {found}: check the name"):
            load_model(f"torchvision:{text}")
