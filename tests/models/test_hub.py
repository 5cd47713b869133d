"""transformers: tiny models with random weights, saved in a folder and loaded from there, without a network."""

import json
import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from certmix.calling import call_model
from certmix.errors import ModelError
from certmix.models.hub import read_steps, resized
from certmix.models.spec import load_model

pytestmark = pytest.mark.filterwarnings("default")  # of transformers itself


def transformers() -> Any:
    """The library: it takes a second to import, and a worker that runs none of these tests need not."""
    return pytest.importorskip("transformers")


MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
IMAGES = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def view(values):
    return torch.tensor(values).view(-1, 1, 1)


@pytest.fixture(scope="module")
def tiny():
    """A vision transformer of 3 classes."""
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers().ViTConfig(image_size=8, patch_size=4, num_labels=3, **shape)
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        return transformers().ViTForImageClassification(config).eval()


@pytest.fixture
def folder(tiny, tmp_path):
    """That model as `save_pretrained` leaves it, with its processor."""
    tiny.save_pretrained(tmp_path / "vit")
    settings = {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": MEAN, "image_std": STD,
                "size": {"height": 8, "width": 8}, "resample": 2, "rescale_factor": 1 / 255,
                "image_processor_type": "ViTImageProcessor"}  # fmt: skip
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path / "vit"


def test_an_image_model_is_prepared_as_its_processor_says(folder, tiny):
    said = []
    loaded = load_model(f"hf:{folder}", say=said.append)
    assert said == [
        "Note: vit: inputs are prepared inside the model: resized to 8 x 8 (bilinear), "
        "then (x - mean) / std, 0.5,0.4,0.3/0.2,0.3,0.4"
    ]
    assert (loaded.name, loaded.input_range, loaded.doubt) == ("vit", (0.0, 1.0), "")
    small = torch.nn.functional.interpolate(IMAGES, (8, 8), mode="bilinear", antialias=True)
    expected = tiny(pixel_values=(small - view(MEAN)) / view(STD)).logits
    assert torch.allclose(loaded.module(IMAGES), expected, atol=1e-6)
    assert not any(p.requires_grad for p in loaded.module.parameters())
    plain = load_model(f"hf:{folder}", normalize="0/1")
    assert torch.allclose(plain.module(IMAGES), tiny(pixel_values=small).logits, atol=1e-6)


def test_gradients_flow_through_the_preparation(folder):
    given = IMAGES.clone().requires_grad_()
    load_model(f"hf:{folder}").module(given)[:, 0].sum().backward()
    assert given.grad.abs().sum() > 0


def test_whatever_changes_the_model_changes_its_checksum(folder, tiny):
    def again():
        return load_model(f"hf:{folder}").checksum

    first, processor = again(), folder / "preprocessor_config.json"
    assert first == again() == load_model(f"hf:{folder}/").checksum
    text = processor.read_text()
    processor.write_text(text.replace("0.5", "0.25"))
    second = again()
    processor.write_text(text.replace('"height": 8, "width": 8', '"shortest_edge": 8'))
    third = again()
    processor.write_text(text)
    with torch.no_grad():
        tiny.classifier.bias += 1
    tiny.save_pretrained(folder)
    with torch.no_grad():
        tiny.classifier.bias -= 1
    assert len({first, second, third, again()}) == 4


def test_models_of_plain_features_take_them_as_they_are(tmp_path):
    config = transformers().PatchTSTConfig(
        num_input_channels=2, context_length=8, patch_length=4, patch_stride=4, num_targets=3, d_model=8,
        num_hidden_layers=1, num_attention_heads=2, ffn_dim=8, use_cls_token=True,
    )  # fmt: skip
    model, said = transformers().PatchTSTForClassification(config).eval(), []
    model.save_pretrained(tmp_path / "series")
    loaded, x = load_model(f"hf:{tmp_path / 'series'}", say=said.append), torch.rand(2, 8, 2)
    assert said == ["Note: series: inputs are its past_values as they are, without a feature extractor"]
    assert torch.allclose(loaded.module(x), model(past_values=x).prediction_logits)
    assert loaded.input_range is None


def damaged(name, change):
    def damage(folder):
        read = json.loads((folder / name).read_text())
        change(read)
        (folder / name).write_text(json.dumps(read))

    return damage


PROCESSOR = "preprocessor_config.json"
DAMAGE = {
    "no such class": (
        damaged("config.json", lambda c: c.update(architectures=["NoNet"])),
        "names NoNet, which transformers does not have: give a module",
    ),
    "no architecture": (damaged("config.json", lambda c: c.pop("architectures")), "names no architecture"),
    "more classes": (
        damaged("config.json", lambda c: c.update(id2label={str(k): str(k) for k in range(5)})),
        "name a folder of save_pretrained|would be random",
    ),
    "headless": (
        lambda folder: transformers().ViTModel.from_pretrained(folder).save_pretrained(folder),
        "returns BaseModelOutput.*: return a tensor or an array",
    ),
    "pads": (damaged(PROCESSOR, lambda c: c.update(do_pad=True)), "does do_pad, which certmix does not"),
    "odd": (damaged(PROCESSOR, lambda c: c.update(size="big")), "is not understood"),
    "no deviation": (damaged(PROCESSOR, lambda c: c.update(image_std=[0, 1, 1])), "a number out of range"),
    "video": (damaged(PROCESSOR, lambda c: c.update(image_processor_type="VivitImageProcessor")), "Vivit"),
    "text": (lambda folder: (folder / "config.json").write_text("no json"), "name a folder of save_pretrained"),
    "pipe": (lambda folder: os.mkfifo(folder / "adapter_config.json"), "it is no regular file"),
    "zeros": (
        lambda folder: (folder / "generation_config.json").symlink_to("/dev/zero"), "it is no regular file",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "name a folder of save_pretrained"),
    "no processor": (lambda folder: (folder / PROCESSOR).unlink(), ""),
    "link to nothing": (lambda folder: (folder / ".#config.json").symlink_to("nowhere"), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folders_are_refused_in_one_line(folder, name):
    damage, message = DAMAGE[name]
    damage(folder)
    if name == "link to nothing":  # an editor's lock
        load_model(f"hf:{folder}")
        return
    if name == "no processor":  # which is not needed
        said = []
        load_model(f"hf:{folder}", say=said.append)
        assert said == [
            "Note: vit: no preprocessor_config.json says how images are prepared: they go in as they are"
        ]
        return
    with pytest.raises(ModelError, match=message) as caught:
        call_model(load_model(f"hf:{folder}").module, IMAGES, f"hf:{folder}")
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"hf:{folder}")


def test_models_of_text_are_refused(tmp_path):
    config = transformers().BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=2,
    )
    transformers().BertForSequenceClassification(config).save_pretrained(tmp_path / "text")
    with pytest.raises(ModelError, match="takes tokens, to which no noise can be added"):
        load_model(f"hf:{tmp_path / 'text'}")


KINDS = [
    "Beit", "Bit", "Blip", "CLIP", "ConvNext", "DeiT", "EfficientNet", "Flava", "Levit", "MobileNetV1",
    "MobileNetV2", "PoolFormer", "Pvt", "Siglip", "TextNet", "ViT",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_are_those_of_the_library_s_processors(kind, tmp_path):
    """Within a level of gray, to which the library rounds between its steps."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))
    name = f"{kind}ImageProcessor"
    processor = (getattr(transformers(), f"{name}Pil", None) or getattr(transformers(), name))()
    processor.save_pretrained(tmp_path)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    steps = read_steps(json.loads((tmp_path / PROCESSOR).read_text()), kind)
    mean, std = map(view, steps.scale or ((0.0,), (1.0,)))
    x = torch.from_numpy(np.asarray(image).transpose(2, 0, 1)[None].astype(np.float32) / 255)
    found = resized((x - mean) / std, steps)
    assert found.shape == expected.shape
    assert ((found - expected) * std).abs().max() < 1.2 / 255
