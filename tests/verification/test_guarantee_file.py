"""Guarantee files: read, written, refused with the line that is wrong; paths that depend on nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.certification.request.proved import GivenConstant, Margin
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError
from certmix.verification.guarantees.claim import Terms
from certmix.verification.guarantees.guarantee import (
    DataClaim,
    GroupClaim,
    Guarantee,
    ModelClaim,
    guarantee_text,
    named_group,
    parse_guarantee,
    read_guarantee,
    relative_claims,
    source_options,
)
from certmix.verification.guarantees.requirements import Requirement

TEXT = """\
version = 1
requirements = [
    "certified_accuracy@0.5 >= 0.4",
    'clean_accuracy >= 0.8 on value',
]

[data]
name = "points.npz"
inputs = 20

[standard]
model = "nets.py:linear"

[robust]
model = "nets.py:linear"
checksum = "aa00000000000000000000000000000000000000000000000000000000000000"
pin = true

[certificate]
name = "exact"
alpha = 0.76
sigma = 0.25

[sampling]
samples = 300
"""

names = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=30).filter(
    lambda text: text.isprintable() and text.strip() and text != "none"
)
digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
numbers = st.floats(1e-6, 1e6)


@st.composite
def models(draw):
    checksum = draw(digests)
    pin = draw(st.booleans()) and checksum is not None
    outputs = draw(st.sampled_from([None, "logits", "probabilities"]))
    return ModelClaim(draw(names), draw(st.none() | names), draw(st.none() | names), outputs, checksum, pin)


@st.composite
def requests(draw):
    alpha = draw(st.floats(0.5, 1))
    radii = tuple(sorted(draw(st.sets(st.floats(0, 0.1) | st.sampled_from([8 / 255, 1 / 255]), min_size=1))))
    inputs = draw(st.just("all") | st.integers(1, 10**6))
    if draw(st.booleans()):
        return GivenConstant(
            alpha, "lipschitz-constant", draw(st.sampled_from(["l1", "l2", "linf"])), inputs, radii,
            lipschitz_constant=draw(numbers), constant_of=draw(st.sampled_from(["logits", "probabilities"])),
        )  # fmt: skip
    if draw(st.booleans()):
        return Margin(alpha, "margin", "linf", inputs, radii, "crown", "exact", 32 / 255)
    return CertifyRequest(
        draw(numbers), alpha, inputs, draw(st.integers(100, 10**9)), draw(st.integers(1, 1000)),
        draw(st.sampled_from(["radii", "radius", "fixed"])), draw(st.sampled_from(["exact", "all"])),
        draw(st.floats(0.001, 0.999)),
        draw(st.floats(1e-12, 0.999)), certificates=(draw(st.sampled_from(["exact", "smoothing"])),),
        radii=radii, seed=draw(st.integers(0, 10**12)), precision=draw(st.sampled_from(["fp32", "bf16"])),
    )  # fmt: skip


@st.composite
def guarantees(draw):
    low, high = sorted(draw(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2, unique=True)))
    data = DataClaim(
        draw(names), draw(names), draw(st.sampled_from([None, (low, high)])), draw(st.none() | st.integers(1, 999)),
        None, draw(digests),
    )  # fmt: skip
    demands = [
        Requirement("mixed", "certified_accuracy", draw(st.floats(0, 9)), draw(st.floats(0, 1))),
        Requirement("mixed", "mean_certified_radius", None, draw(st.floats(0, 9)), "value"),
        Requirement(
            "robust", "clean_accuracy", None, 0.5, "value", "site", draw(st.sampled_from(["", "a b", "c"]))
        ),
    ]
    request, words = draw(requests()), st.none() | names
    terms = Terms(
        draw(st.floats(0.01, 0.99)),
        draw(st.sampled_from(["split", "verdict"])),
        draw(st.integers(1, 9)),
        draw(words),
        draw(words),
    )
    groups = {
        "site": GroupClaim(draw(names), draw(words), draw(digests)),
        "s-2": GroupClaim(None, draw(names)),
    }
    budget = draw(st.none() | st.integers(1, 10**12)) if isinstance(request, CertifyRequest) else None
    return Guarantee(
        tuple(demands), data, draw(st.none() | models()), draw(models()), request, terms=terms,
        groups=groups, budget=budget,
    )  # fmt: skip


@given(guarantees())
@settings(max_examples=40, deadline=None)
def test_a_guarantee_reads_back_from_its_text(guarantee):
    assert parse_guarantee(guarantee_text(guarantee)) == guarantee


def test_what_a_file_says():
    found = parse_guarantee(TEXT)
    demands = ["certified_accuracy@0.5 >= 0.4", "clean_accuracy >= 0.8 on value"]
    assert [str(one) for one in found.requirements] == demands
    assert list(found.lines.values()) == [3, 4]
    assert found.robust.pin and not found.standard.pin
    assert found.request == CertifyRequest(
        0.25, 0.76, inputs=20, samples=300, certificates=("exact",), precision="fp32"
    )
    found = parse_guarantee(TEXT.replace("@0.5", "@0.6"))  # sampling settles the radii of requirements
    assert 0.6 in found.asked.radii
    assert set(found.request.radii) < set(found.asked.radii)


WRONG = {
    "unknown key": ("alpha = 0.76", "alhpa = 0.76", 21, "did you mean alpha"),
    "type": ("samples = 300", 'samples = "300"', 25, "give a whole number"),
    "a flag is no number": ("samples = 300", "samples = true", 25, "give a whole number"),
    "range": ("alpha = 0.76", "alpha = 0.3", 21, "1/2 <= alpha <= 1"),
    "few samples": ("samples = 300", "samples = 3", 25, "raise samples or use goal fixed"),
    "nan": ("sigma = 0.25", "sigma = nan", 22, "sigma"),
    "infinite": ("sigma = 0.25", "sigma = inf", 22, "at most 10^12"),
    "huge": ("samples = 300", "samples = 1" + "0" * 40, 25, "at most 10^12"),
    "certificate": ('name = "exact"', 'name = "magic"', 20, "'magic' is unknown"),
    "requirement": (">= 0.4", "> 0.4", 3, "only '>='"),
    "requirement's range": (">= 0.4", ">= 40", 3, "share of 1"),
    "requirement twice": ("clean_accuracy >= 0.8 on value", "certified_accuracy@0.5 >= 0.4", 3, "twice"),
    "no such table": ("[robust]", "[robot]", 14, "table [robot] is unknown"),
    "version": ("version = 1", "version = 7", 1, "update certmix"),
    "pin without checksum": ("checksum = ", "weights = ", 17, "pinned without a checksum"),
    "checksum": ("aa000", "zz000", 16, "64 hexadecimal digits"),
    "no alpha": ("alpha = 0.76\n", "", 19, "no alpha"),
    "line end in a name": ("points.npz", r"a\n::error::b", 8, "a text of one line"),
    "nul in a path": ("nets.py:linear", r"a\u0000b", 12, "unprintable"),
    "long name": ("points.npz", "x" * 300, 8, "too long"),
    "sampling of what draws none": ('"exact"\nalpha = 0.76\nsigma = 0.25', '"margin"\nalpha = 0.76', 23, "draws no samples"),
    "unknown group": ("certified_accuracy@0.5", "certified_accuracy@0.5 of site a", 3, "add a table [groups.site]"),
    "key of a group": ("[data]", "[groups.site]\nfiles = 'a'\n[data]", 8, "files"),
    "group without a place": ("[data]", "[groups.site]\n[data]", 7, "name a file"),
    "group of a name that is taken": ("[data]", "[groups.class]\nfile = 'a'\n[data]", 7, "other than class and each"),
    "confidence": ("[data]", "[claim]\nconfidence = 95\n[data]", 8, "between 0 and 1"),
    "joint": ("[data]", "[claim]\njoint = 'each'\n[data]", 8, "use one of split, verdict"),
    "budget": ("samples = 300", "budget = 0", 25, "above 0"),
    "option of another certificate": ("sigma = 0.25", "sigma = 0.25\nmax_radius = 1", 23, "leave it out"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_line(case):
    old, new, line, expected = WRONG[case]
    assert old in TEXT
    with pytest.raises(ParameterError) as error:
        parse_guarantee(TEXT.replace(old, new))
    message = str(error.value)
    assert message.startswith(f"guarantee.toml, line {line}: "), message
    assert expected in message
    assert "\n" not in message
    assert "--" not in message


@pytest.mark.parametrize(
    "text, expected",
    [
        ("version = 1\nalpha = = 2\n", r"not TOML .*line 2"),
        ("x = " + "[" * 5000, "not TOML"),
        (TEXT.split("[standard]")[0] + "[certificate]\nalpha = 0.76\nsigma = 1\n", r"no table \[robust\]"),
        (
            TEXT.replace('[standard]\nmodel = "nets.py:linear"', ""),
            "line 4: clean_accuracy needs the standard",
        ),
    ],
)
def test_files_that_lack_something(text, expected):
    with pytest.raises(ParameterError, match=expected):
        parse_guarantee(text)


def test_files_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.toml").write_bytes(b"#" * (1 << 21))
    for path, reason in (
        ("a.toml", "UTF-8"),
        ("b.toml", "at most 1,048,576 are read"),
        ("none.toml", "cannot be read"),
    ):
        with pytest.raises(ParameterError, match=reason):
            read_guarantee(tmp_path / path)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("cifar10-standard", "cifar10-standard"),
        ("timm:resnet18", "timm:resnet18"),
        ("robustbench:Standard", "robustbench:Standard"),
        ("package.nets:wide", "package.nets:wide"),
        ("~/h.json", "/g/~/h.json"),
        ("~nobody/h.json", "/g/~nobody/h.json"),
        ("nuts:../mix#robust", "nuts:/mix#robust"),
        ("../../../../etc/passwd", "/etc/passwd"),
        ("$HOME;rm -rf x", "/g/$HOME;rm -rf x"),
        ("/abs/h.json", "/abs/h.json"),
    ],
)
def test_specs_of_models_become_absolute_and_nothing_in_them_is_expanded(text, expected):
    found = Guarantee(
        (), DataClaim(), None, ModelClaim(text), CertifyRequest(1, 1), Path("/g/guarantee.toml")
    )
    assert source_options(found)["robust"] == expected


def test_stored_paths_become_relative_and_come_back(tmp_path: Path, monkeypatch):
    """As seen from the file's folder, whatever the working directory is."""
    stored = {
        "data": str(tmp_path / "d" / "x.npz"), "split": "test", "input_range": [0.0, 1.0], "resize": None,
        "crop": None, "standard": None, "standard_weights": None, "standard_normalize": None,
        "robust": f"{tmp_path / 'm' / 'nets.py'}:net", "robust_weights": str(tmp_path / "w.pt"),
        "robust_normalize": "0.5/0.25",
    }  # fmt: skip
    monkeypatch.chdir("/")
    folder = tmp_path / "ci"
    folder.mkdir()
    data, standard, robust = relative_claims(stored, folder)
    assert (data.name, standard) == ("../d/x.npz", None)
    assert (robust.model, robust.weights) == ("../m/nets.py:net", "../w.pt")
    back = source_options(Guarantee((), data, None, robust, CertifyRequest(1, 1), folder / "g.toml"))
    names = ("data", "robust", "robust_weights", "robust_normalize")
    assert {name: os.path.normpath(back[name]) for name in names} == {name: stored[name] for name in names}


def test_groups_are_named_on_the_command_line_as_in_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, wanted in (
        ("site=a.txt", GroupClaim("../a.txt")), ("site=d/t.csv#where", GroupClaim("../d/t.csv", "where")),
        ("site=#where", GroupClaim(None, "where")),
    ):  # fmt: skip
        assert named_group(text, tmp_path / "ci") == ("site", wanted)
    for text in ("site", "site=", "=a.txt", "site=#", "site=a#"):
        with pytest.raises(ParameterError, match="write NAME=FILE"):
            named_group(text, tmp_path)
