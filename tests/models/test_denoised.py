"""A classifier behind a denoiser: one function of the input, by spec, by option and from memory."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace

import msgspec
import pytest
import torch
from torch import nn

import certmix
from certmix.errors import ModelError, ParameterError
from certmix.models.architectures import Denoiser, build
from certmix.models.composed import at_sigma, denoised_parts, denoised_spec, diffusers_parts, paths_changed
from certmix.models.denoised import Denoised, OneStep, nearest_step, noise_of
from certmix.models.spec import load_model
from certmix.models.zoo import save_zoo
from certmix.radii import Smoothing
from certmix.runs.folder import with_paths
from certmix.runs.sources import Sources

NETS = """
import torch
from torch import nn
torch.manual_seed(0)

class Half(nn.Module):
    def forward(self, x):
        return x / 2

class Blind(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))

net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
half, blind = Half(), Blind()
"""


@pytest.fixture
def nets(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


def inputs(count=2, side=8):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_a_spec_holds_both_and_its_paths_are_found():
    spec = denoised_spec("diffusers:ddpm@0.5", "net.py:net")
    assert denoised_parts(spec) == ("diffusers:ddpm@0.5", "net.py:net")
    for plain in ("net.py:net", "denoised:one", "denoised:,net.py:net", "denoised:d,"):
        assert denoised_parts(plain) is None
    assert diffusers_parts("diffusers:a@b") == ("a@b", "") and diffusers_parts("diffusers:@0.5") == (
        "@0.5",
        "",
    )
    with pytest.raises(ParameterError, match="comma"):
        denoised_spec("a,b.json", "net.py:net")
    moved = with_paths({"robust": f"denoised:d.json,{spec}"}, lambda path: f"/there/{path}")
    assert moved["robust"] == "denoised:/there/d.json,denoised:diffusers:/there/ddpm@0.5,/there/net.py:net"
    assert (
        with_paths({"robust": "denoised:d,nuts:mix#base"}, str.upper)["robust"] == "denoised:D,nuts:MIX#base"
    )
    assert paths_changed("net.py:net", str.upper) == "NET.PY:net"


def test_only_a_diffusion_model_is_told_the_noise_level():
    for spec, told in (
        ("diffusers:ddpm", "diffusers:ddpm@0.25"), ("diffusers:ddpm@0.5", "diffusers:ddpm@0.5"),
        ("denoised:diffusers:ddpm,net.py:net", "denoised:diffusers:ddpm@0.25,net.py:net"),
        ("net.py:net", "net.py:net"), ("cifar10-standard", "cifar10-standard"),
    ):  # fmt: skip
        assert at_sigma(spec, 0.25) == told == at_sigma(told, 0.5)


def test_it_is_the_classifier_of_what_the_denoiser_returns(nets, tmp_path):
    whole, half, net = (
        load_model(spec) for spec in (f"denoised:{nets}:half,{nets}:net", f"{nets}:half", f"{nets}:net")
    )
    x = inputs()
    assert torch.equal(whole.module(x), net.module(x / 2)) and isinstance(whole.module, Denoised)
    assert whole.name == f"{half.name}+{net.name}" and whole.trained_for is None
    sums = {
        whole.checksum,
        half.checksum,
        net.checksum,
        load_model(f"denoised:{nets}:net,{nets}:net").checksum,
    }
    nets.write_text(NETS.replace("x / 2", "x / 3"))
    assert len({*sums, load_model(f"denoised:{nets}:half,{nets}:net").checksum}) == 5
    weights = tmp_path / "w.pt"
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).state_dict(), weights)
    other = load_model(f"denoised:{nets}:half,{nets}:net", weights=weights, normalize="0.5/0.5")
    base = load_model(f"{nets}:net", weights=weights, normalize="0.5/0.5")
    assert torch.equal(other.module(x), base.module(x / 3))


def test_a_card_says_the_noise_level_and_what_it_is(nets, tmp_path, make_card):
    card = make_card(
        "d", architecture="denoiser", classes=None, noise_sigma=0.5,
        input_shape=(3, 8, 8),
    )  # fmt: skip
    net = Denoiser()
    nn.init.normal_(net.head.weight)
    save_zoo(tmp_path, card, net)
    denoiser, path = load_model(str(tmp_path / "d.json")), tmp_path / "d.json"
    both = load_model(f"denoised:{path},{nets}:net")
    cleaned = denoiser.module(5 * inputs())
    assert cleaned.shape == (2, 3, 8, 8)
    assert torch.equal(both.module(5 * inputs()), load_model(f"{nets}:net").module(cleaned))
    assert (both.trained_for, both.input_range) == (Smoothing.of(0.5), (0.0, 1.0))
    save_zoo(tmp_path, make_card("c", noise_sigma=0.25), build("residual"))
    for spec, told in (
        (f"denoised:{path},{path}", "d is a denoiser: name a classifier"),
        (f"denoised:{tmp_path / 'c.json'},{nets}:net", "c is a classifier: name a denoiser"),
    ):
        with pytest.raises(ModelError, match=told):
            load_model(spec)
    with pytest.raises(ModelError, match="--denoiser"):
        load_model(str(path), classes=10)
    save_zoo(tmp_path, msgspec.structs.replace(card, name="wide", input_range=(-1.0, 1.0)), net)
    with pytest.raises(
        ModelError, match=re.escape("wide takes inputs in (-1.0, 1.0), the classifier c in (0.0, 1.0)")
    ):
        load_model(f"denoised:{tmp_path / 'wide.json'},{tmp_path / 'c.json'}")


@pytest.mark.parametrize("changes", [{"classes": 10}, {"architecture": "residual", "classes": None}])
def test_a_card_of_a_denoiser_has_no_classes(changes, make_card, tmp_path):
    card = make_card(**{"architecture": "denoiser", **changes})
    with pytest.raises(ModelError, match="denoiser has no classes"):
        save_zoo(tmp_path, card, Denoiser())


def test_a_denoiser_that_changes_the_shape_is_told(nets):
    with pytest.raises(ModelError, match=r"returns \(2,\) for inputs \(2, 3, 8, 8\)"):
        load_model(f"denoised:{nets}:blind,{nets}:net").module(inputs())


def test_the_base_is_the_standard_model_with_all_that_is_its(nets):
    named = Sources(
        standard="g.py:g",
        standard_weights="g.pt",
        standard_normalize="0/1",
        standard_files=("a",),
        denoiser="d.py:d",
    )
    assert (named.robust, named.robust_weights, named.robust_normalize) == (
        "denoised:d.py:d,g.py:g",
        "g.pt",
        "0/1",
    )
    assert named.robust_files == ("a",) and named.denoiser is None and named.standard == "g.py:g"
    own = Sources(standard="g.py:g", standard_weights="g.pt", robust="h.py:h", denoiser="d.py:d")
    assert (own.robust, own.robust_weights) == ("denoised:d.py:d,h.py:h", None)
    with pytest.raises(ParameterError, match="--robust"):
        Sources(standard=None, denoiser="d.py:d")
    kept = Sources(standard=nn.Linear(2, 2), denoiser="diffusers:there").at(0.5)
    assert kept.robust is kept.standard and kept.denoiser == "diffusers:there@0.5"
    assert kept.as_dict()["objects"] == ["standard", "robust"] and "denoiser" not in named.as_dict()


def shares(steps=1000, first=1e-4, last=0.02):
    return (1 - torch.linspace(first, last, steps)).cumprod(0)


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5, 1.0])
def test_the_step_has_the_noise_of_the_input_on_its_own_scale(sigma):
    t = nearest_step(shares(), sigma)
    assert noise_of(float(shares()[t])) == pytest.approx(sigma, rel=0.02)
    for other in (t - 1, t + 1):
        assert abs(math.log(noise_of(float(shares()[other])) / sigma)) >= abs(
            math.log(noise_of(float(shares()[t])) / sigma)
        )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_one_step_gives_back_the_image_of_a_net_that_knows_the_noise(prediction):
    """The net is told what a perfect one would predict: the image comes back whatever that is."""
    image, share, sigma = inputs(), float(shares()[259]), noise_of(float(shares()[259]))
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    x0 = 2 * image - 1
    known = {
        "epsilon": noise, "sample": x0,
        "v_prediction": math.sqrt(share) * noise - math.sqrt(1 - share) * x0,
    }[prediction]  # fmt: skip

    class Net(nn.Module):
        def forward(self, x, t):
            assert t == 259
            torch.testing.assert_close(x, math.sqrt(share) * x0 + math.sqrt(1 - share) * noise)
            return SimpleNamespace(
                sample=torch.cat([known, known + 9], 1)
            )  # the half of the variances is left

    step = OneStep(Net(), 259, share, prediction)
    torch.testing.assert_close(step(image + sigma * noise), image, atol=1e-5, rtol=0)


WRONG = {
    "its network is a": ("config.json", {"_class_name": "UNet2DConditionModel"}),
    "class-conditional": ("config.json", {"num_class_embeds": 10}),
    "center_input_sample": ("config.json", {"center_input_sample": True}),
    "time embedding is fourier": ("config.json", {"time_embedding_type": "fourier"}),
    "4 out": ("config.json", {"out_channels": 4}),
    "its scheduler is a": ("scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}),
    "predicts 'flow'": ("scheduler_config.json", {"prediction_type": "flow"}),
    "thresholds": ("scheduler_config.json", {"thresholding": True}),
    "clip_sample_range = 0": ("scheduler_config.json", {"clip_sample_range": 0}),
}
SCHEDULE = {"_class_name": "DDPMScheduler", "clip_sample": True, "prediction_type": "epsilon"}


def written(folder, **changes):
    """Configurations of a diffusion model, of which some say something else."""
    folder.mkdir(exist_ok=True)
    for name, told in (("config.json", {"_class_name": "UNet2DModel"}), ("scheduler_config.json", SCHEDULE)):
        (folder / name).write_text(json.dumps({**told, **changes.get(name.removesuffix(".json"), {})}))
    return folder


@pytest.mark.parametrize("told", WRONG)
def test_what_one_step_cannot_mean_is_refused_before_anything_is_loaded(told, tmp_path):
    file, change = WRONG[told]
    folder = written(tmp_path / "ddpm", **{file.removesuffix(".json"): change})
    with pytest.raises(ModelError, match=re.escape(told)):
        load_model(f"diffusers:{folder}@0.5")


def test_a_folder_without_a_level_or_a_configuration_is_told_so(tmp_path):
    for spec, told in (
        (f"diffusers:{tmp_path}", "write diffusers:.*@0.5"),
        (f"diffusers:{tmp_path}@-1", "noise level"),
        (f"diffusers:{tmp_path}@0.5", "scheduler_config.json"),
    ):
        with pytest.raises(ModelError, match=told):
            load_model(spec)


TINY = {
    "sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
}  # fmt: skip


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory):
    """A tiny random diffusion model, as a pipeline is saved."""
    diffusers, folder = pytest.importorskip("diffusers"), tmp_path_factory.mktemp("models") / "ddpm"
    torch.manual_seed(0)
    diffusers.UNet2DModel(**TINY).save_pretrained(folder / "unet")
    diffusers.DDPMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.long  # diffusers takes seconds to import
class TestDiffusers:
    def test_it_is_what_the_scheduler_calls_the_predicted_image(self, ddpm):
        import diffusers

        said: list[str] = []
        loaded = load_model(f"diffusers:{ddpm}@0.5", say=said.append)
        assert (loaded.trained_for, loaded.input_range) == (
            Smoothing.of(0.5),
            (0.0, 1.0),
        ) and not loaded.doubt
        scheduler = diffusers.DDPMScheduler.from_pretrained(ddpm / "scheduler")
        unet = diffusers.UNet2DModel.from_pretrained(ddpm / "unet").eval()
        x, t = inputs(), loaded.module.timestep
        share = scheduler.alphas_cumprod[t]
        assert float(((1 - share) / share).sqrt()) == pytest.approx(2 * 0.5, rel=0.01)
        noisy = share.sqrt() * (2 * x - 1)
        with torch.no_grad():
            expected = scheduler.step(unet(noisy, t).sample, t, noisy).pred_original_sample
            torch.testing.assert_close(loaded.module(x), (expected + 1) / 2, atol=1e-5, rtol=1e-4)
            assert torch.equal(loaded.module(x), loaded.module(x))
            single = torch.cat([loaded.module(one[None]) for one in x])
            torch.testing.assert_close(single, loaded.module(x), atol=1e-5, rtol=1e-4)
        assert f"step {t} of 1000" in said[0] and "[-1, 1], where the noise is 1" in said[0]
        assert load_model(f"diffusers:{ddpm}@0.25").checksum != loaded.checksum
        with pytest.raises(ModelError, match="use another sigma"):
            load_model(f"diffusers:{ddpm}@200")
        with pytest.raises(ModelError, match="was trained on images"):
            loaded.module(inputs(side=16))

    def test_the_level_is_that_of_the_run(self, ddpm, nets, command, tmp_path):
        run = tmp_path / "run"
        data = tmp_path / "points.npz"
        write_points(data)
        words = (
            "certify", "--sigma", 0.5, "--alpha", 0.76, "--standard", f"{nets}:net", "--data", data, "--inputs", 2,
            "--samples", 100, "--selection-samples", 10, "--output", run, "--denoiser",
        )  # fmt: skip
        done = command(*words, f"diffusers:{ddpm}")
        assert done.code == 0, done.err
        stored = json.loads((run / "run.json").read_text())["sources"]["robust"]
        assert stored == f"denoised:diffusers:{ddpm}@0.5,{nets}:net" and "in one step" in done.err
        again = command(*words, f"diffusers:{ddpm}@0.5")
        assert again.code == 0 and again.out == done.out
        wrong = command(*words[:-1], "--fresh", "--denoiser", f"diffusers:{ddpm}@0.25")
        assert (
            "ddpm@0.25 was trained for" not in done.err
            and "sigma = 0.25 and is used with sigma = 0.5" in wrong.err
        )


def write_points(path):
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez(
        path,
        inputs=rng.random((6, 3, 8, 8), np.float32),
        labels=np.arange(6) % 3,
        class_names=np.array(["a", "b", "c"]),
    )


def test_certify_takes_a_denoiser_and_the_run_is_verified(nets, command, tmp_path):
    data, run = tmp_path / "points.npz", tmp_path / "run"
    write_points(data)
    words = ("certify", "--sigma", 0.25, "--alpha", 0.76, "--data", data, "--inputs", 4, "--samples", 200,
             "--standard", f"{nets}:net")  # fmt: skip
    done = command(*words, "--denoiser", f"{nets}:half", "--output", run)
    assert done.code == 0, done.err
    told = json.loads((run / "run.json").read_text())
    assert (
        told["sources"]["robust"] == f"denoised:{nets}:half,{nets}:net" and "denoiser" not in told["sources"]
    )
    same = command(*words, "--robust", f"denoised:{nets}:half,{nets}:net", "--output", tmp_path / "same")
    assert same.out == done.out
    refused = command("verify", run)
    assert refused.code == 2 and "--run-code" in refused.out
    verified = command("verify", run, "--run-code")
    assert verified.code == 0, verified.err
    nets.write_text(NETS.replace("x / 2", "x / 3"))  # the denoiser's code is part of what was certified
    assert command("verify", run, "--run-code").code == 1


@pytest.mark.parametrize("denoiser", ["spec", "module"])
def test_python_puts_a_denoiser_in_front(nets, denoiser):
    half, net = load_model(f"{nets}:half").module, load_model(f"{nets}:net").module
    given = f"{nets}:half" if denoiser == "spec" else half
    h = certmix.SmoothedClassifier(net, 0.25, classes=3, denoiser=given)
    plain = certmix.SmoothedClassifier(nn.Sequential(half, net), 0.25, classes=3)
    found, expected = (
        one.certify(inputs(2), samples=300, alpha=0.76, selection_samples=20) for one in (h, plain)
    )
    assert found.radii.radius.tolist() == expected.radii.radius.tolist()

    data = inputs(4).numpy(), [0, 1, 2, 0]
    how = {"alpha": 0.76, "sigma": 0.25, "samples": 100, "selection_samples": 10, "inputs": 4}
    front, whole = (
        certmix.certify((net, base), data, **how, **named)
        for base, named in ((net, {"denoiser": given}), (nn.Sequential(half, net), {}))
    )
    assert front.summary.rows == whole.summary.rows
    with pytest.raises(
        ParameterError, match="denoiser of type int is no model: give a name or a torch module"
    ):
        certmix.certify((net, net), data, **how, denoiser=3)
