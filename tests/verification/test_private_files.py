"""Private files that a received run, mix or guarantee names: reports and messages quote nothing of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from forged import copied

from certmix.errors import CertmixError, DataError, ModelError
from certmix.models.spec import load_model
from certmix.nuts.description import MixSettings
from certmix.nuts.folder import BaseModel, load_nuts, save_nuts
from certmix.nuts.grid import TransformSettings
from certmix.runs import read_run
from certmix.runs.sources import Sources, load_data
from certmix.verification.stored import reload

SECRET = "hunter2"
TEXT = f"machine api login alice password {SECRET}\n"


def forms(home: Path) -> dict[str, Path]:
    """Write private files, whose content or names hold the secret, in forms that something reads."""
    home.mkdir()
    found = {f"a .{end}": home / f"own.{end}" for end in ("csv", "tsv", "json", "npz", "npy", "parquet", "pt",
             "safetensors", "txt", "toml", "netrc")}  # fmt: skip
    for path in found.values():
        path.write_text(f"{SECRET},alice\n{TEXT}")
    tables = {
        "header": f"user,{SECRET}\n1,2\n", "labels": f"x,y,label\n0.1,0.2,{SECRET}\n0.3,0.4,other\n",
        "one label": f"x,label\n1,{SECRET}\n2,{SECRET}\n", "texts": f"x,y,label\n{SECRET},1,0\nb,2,1\n",
        "twice": f"{SECRET},{SECRET},label\n1,2,0\n", "empty": f"{SECRET},label\n,0\n",
        "same": f"{SECRET},label\n1,0\n1,1\n", "quoted": f'x,label\n"{SECRET}',
    }  # fmt: skip
    for name, text in tables.items():
        found[f"table, {name}"] = home / f"{name}.csv"
        found[f"table, {name}"].write_text(text)
    jsons = {"object": {SECRET: SECRET}, "card": {"name": SECRET, "architecture": SECRET}, "list": [SECRET]}
    for name, value in jsons.items():
        found[f"json, {name}"] = home / f"{name}.json"
        found[f"json, {name}"].write_text(json.dumps(value))
    found["json, twice"] = home / "twice.json"
    found["json, twice"].write_text(f'{{"{SECRET}": 1, "{SECRET}": 2}}')
    found["apostrophe"] = home / "own.words"
    found["apostrophe"].write_text(f"alice's {SECRET}\n")
    np.savez(home / "other.npz", **{SECRET: np.zeros(3)})
    np.savez(home / "names.npz", inputs=np.zeros((2, 2)), labels=np.array([SECRET, "b"]))
    np.savez(home / "classes.npz", inputs=np.zeros((2, 2)), labels=[0, 1], class_names=[SECRET, "b"])
    (home / "box").mkdir()
    (home / "box" / f"{SECRET}.json").write_text("{}")
    (home / "box" / f"{SECRET}.safetensors").write_text("")
    (home / "cifar").mkdir()
    (home / "cifar" / "batches.meta.txt").write_text(f"{SECRET}\n")
    (home / "cifar" / "test_batch.bin").write_bytes(bytes(3073))
    (home / "photos" / SECRET).mkdir(parents=True)
    (home / "photos" / SECRET / "1.png").write_text(TEXT)
    (home / "link").symlink_to(home / "box")
    for name in ("other.npz", "names.npz", "classes.npz", "link", "cifar", "photos", "gone.json"):
        found[name] = home / name
    return found


PLACES = ("data", "feature_scale", "standard", "robust", "denoiser", "robust_weights", "robust_files", "split",
          "data and scales")  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_report_of_a_run_quotes_what_it_names(runs, command, tmp_path, place):
    run = copied(runs["sequential"], tmp_path / "run")
    described = json.loads((run / "run.json").read_text())
    for name, path in forms(tmp_path / "home").items():
        changed: dict[str, object] = {place: [str(path)] if place == "robust_files" else str(path)}
        if place == "split":
            changed = {"data": str(path), "split": "other"}
        elif place == "data and scales":
            changed = {"data": str(path), "feature_scale": "std", "label_column": "label"}
        sources = described["sources"] | changed
        (run / "run.json").write_text(json.dumps({**described, "sources": sources}))
        reloaded = reload(run, read_run(run))
        assert SECRET not in str(reloaded.problems), name
        if name not in ("table, labels", "json, card", "classes.npz"):
            continue  # commands say the same
        for words in (("verify", "run", "--resample", 0, "--report", "junit=r.xml", "--report", "json=r.json"),
                      ("reproduce", "run"), ("report", "run", "--output", "page.html"),
                      ("guarantee", "init", "run", "--force")):  # fmt: skip
            found = command(*words)
            made = "".join(one.read_text() for one in tmp_path.glob("*.*") if one.is_file())
            assert SECRET not in f"{found.out}{found.err}{made}", (name, words)


@pytest.mark.parametrize("place", ["data", "robust", "group", "group, a column"])
def test_no_report_of_a_guarantee_quotes_what_it_names(runs, command, tmp_path, place):
    copied(runs["sequential"], tmp_path / "run")
    assert command("guarantee", "init", "run").code == 0
    text = Path("guarantee.toml").read_text()
    for name, path in forms(tmp_path / "home").items():
        group = f'\n[groups.own]\nfile = "{path}"\n' + ("" if place == "group" else 'column = "no"\n')
        changed = {
            "data": re.sub(r"(\[data\]\nname = ).*", rf'\1"{path}"', text),
            "robust": re.sub(r"(\[robust\]\nmodel = ).*", rf'\1"{path}"', text),
        }.get(place, text + group)
        assert changed != text
        Path("guarantee.toml").write_text(changed)
        allowed = ("--run-code",) if "group" in place else ()
        found = command("verify", "guarantee.toml", "--report", "json=r.json", *allowed)
        made = "".join(one.read_text() for one in tmp_path.glob("r.*"))
        assert SECRET not in f"{found.out}{found.err}{made}", name


def test_no_error_of_a_mix_quotes_what_it_names(named, tmp_path):
    pair = [BaseModel(load_model("cifar10-standard")), BaseModel(load_model("cifar10-gaussian-0.25"))]
    save_nuts(tmp_path / "mix", MixSettings(TransformSettings(1.0, 1.0, 0.0), 0.8), *pair)
    described = json.loads((tmp_path / "mix" / "nuts.json").read_text())
    for name, path in forms(tmp_path / "home").items():
        for changed in ({"spec": str(path)}, {"weights": str(path)}, {"files": [str(path)]}):
            told = {**described, "standard": {**described["standard"], **changed}}
            (tmp_path / "mix" / "nuts.json").write_text(json.dumps(told))
            with pytest.raises(CertmixError) as caught:
                load_nuts(tmp_path / "mix")
            assert SECRET not in str(caught.value), (name, changed)


def test_what_came_along_or_was_named_by_the_user_is_quoted(tmp_path):
    files = forms(tmp_path / "home")
    path, card = files["table, labels"], files["json, object"]
    given = {"data": str(path), "label_column": "no"}
    with pytest.raises(DataError, match=r"there is no column 'no' \(columns: x, y, label\)"):
        load_data(Sources(**given))
    (tmp_path / "run").mkdir()
    shutil.copy(path, tmp_path / "run" / "own.csv")
    mine, others = tmp_path / "run" / "run.json", tmp_path / "other" / "run.json"
    with pytest.raises(DataError, match="columns: x, y, label"):
        load_data(Sources.from_dict({**given, "data": str(tmp_path / "run" / "own.csv")}, mine))
    (tmp_path / "run" / "link.csv").symlink_to(path)
    for data in (str(path), str(tmp_path / "run" / "link.csv")):
        told = (
            f"^{data}, which {mine} names, cannot be read as data; it may be private, .*--data, to see why$"
        )
        with pytest.raises(DataError, match=told):
            load_data(Sources.from_dict({**given, "data": data}, mine))
    gone = Sources.from_dict({"data": str(tmp_path / "gone.npz")}, others)
    with pytest.raises(DataError, match="no such path exists"):
        load_data(gone)
    with pytest.raises(ModelError, match="is no card .*hunter2|is no card"):
        load_model(str(card))
    with pytest.raises(ModelError, match="cannot be read as a model; it may be private"):
        load_model(str(card), named_by=others)
