"""What the examples of a page take for granted: small models, files and run folders."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from onnx_nets import graph
from PIL import Image
from torch import nn

import certmix
from certmix.models.architectures import build
from certmix.models.zoo import save_zoo, zoo_card
from certmix.tables.words import summary_table
from certmix.verification.guarantees.guarantee import guarantee_text
from certmix.verification.proposing import propose

Names = dict[str, Any]


def small_net(seed: int, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), nn.ReLU(), nn.Linear(8, classes))
    return net.eval().requires_grad_(False)


def models(problem: Any, names: Names) -> None:
    """Two small nets, four inputs with labels."""
    names.update(standard=small_net(0), robust=small_net(1), model=small_net(1), net=small_net(1))
    names["inputs"] = torch.rand((4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    names["labels"] = names["model"](names["inputs"]).argmax(1)
    names.update(torch=torch, MixedClassifier=certmix.MixedClassifier)


def certified(problem: Any, folder: str | None) -> certmix.CertifyResult:
    nets = f"{problem.folder / 'nets.py'}:linear"
    return certmix.certify(
        sigma=0.25, alpha=0.76, data=str(problem.folder / "points.npz"), standard=nets, robust=nets, samples=200,
        inputs="all", output=folder,
    )  # fmt: skip


def run_folders(problem: Any, names: Names) -> None:
    """A finished run, under the names that pages use."""
    certified(problem, "runs/RUN")
    for folder in ("runs/A", "runs/B"):
        shutil.copytree("runs/RUN", folder)


def guarantee(problem: Any, names: Names) -> None:
    """A guarantee file that a finished run meets."""
    certified(problem, "runs/RUN")
    found, remarks = propose(Path("runs/RUN"), Path("guarantee.toml"), slack=0.1, pin=False)
    Path("guarantee.toml").write_text(guarantee_text(found, remarks=remarks, heading=""))


def model_files(problem: Any, names: Names) -> None:
    """A whole model in a torch file, and a model with a card in `models`."""
    models(problem, names)
    torch.save({"model": names["model"]}, "old.pt")
    card = replace(zoo_card("cifar10-gaussian-0.25"), name="cifar10-gaussian-0.35", noise_sigma=0.35)
    net = build(card.architecture, card.classes)
    save_zoo(Path("models"), card, net)


def summary(problem: Any, names: Names) -> None:
    result = certified(problem, None)
    study = SimpleNamespace(table=summary_table(result.summary))
    names.update(summary=result.summary, curves=result.evaluation.curves, result=study)


def log(problem: Any, names: Names) -> None:
    rows = [f"{20 * k}\t{k % 3}\t{k % 3}\t{0.1 * k:.3f}\t1\t0:00:01.5" for k in range(12)]
    text = "\n".join(["idx\tlabel\tpredict\tradius\tcorrect\ttime", *rows]) + "\n"
    for name in ("cohen-0.25.tsv", "cohen-0.50.tsv", "cohen-1.00.tsv"):
        Path(name).write_text(text)


def flowers(problem: Any, names: Names) -> None:
    for name in ("daisy/1.jpg", "tulip/3.png"):
        path = Path("flowers/test", name)
        path.parent.mkdir(parents=True)
        Image.new("RGB", (300, 260)).save(path)


def inputs(problem: Any, names: Names) -> None:
    """One file of inputs."""
    np.savez("all.npz", inputs=np.zeros((600, 2, 2, 3), np.uint8), labels=np.arange(600) % 3)


def iris(problem: Any, names: Names) -> None:
    """Rows in flowers.npz, two linear models of them as ONNX files."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, labels = load_iris(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    test = np.arange(len(x)) % 3 == 0
    np.savez("flowers.npz", inputs=x[test].astype(np.float32), labels=labels[test])
    for name, sigma in (("accurate", 0.0), ("noisy", 0.3)):
        rows = np.repeat(x[~test], 20, axis=0)
        rows = rows + np.random.default_rng(0).normal(0, sigma, rows.shape)
        fitted = LogisticRegression().fit(rows, np.repeat(labels[~test], 20))
        graph(f"{name}.onnx", weight=fitted.coef_.T, bias=fitted.intercept_, shape=[4])


def service(problem: Any, names: Names) -> None:
    """These, and a server that answers as the accurate one; it keeps the sizes of its requests."""
    iris(problem, names)
    import onnxruntime

    session, asked = onnxruntime.InferenceSession("accurate.onnx"), []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rows = np.asarray(body["inputs"], np.float32)
            asked.append(len(rows))
            (logits,) = session.run(None, {"x": rows})
            shares = torch.from_numpy(logits).softmax(1).tolist()
            answer = json.dumps({"probabilities": shares}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *given: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    SERVERS.append(server)  # while the tests run
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["MODEL_URL"] = f"http://127.0.0.1:{server.server_port}/predict"
    names["asked"] = asked


SERVERS: list[HTTPServer] = []

SETUPS: dict[str, Callable[[Any, Names], None]] = {
    "README.md": models,
    "attacks.md": models,
    "data.md": flowers,
    "howto-compromise.md": inputs,
    "howto-http.md": service,
    "howto-logs.md": log,
    "howto-onnx.md": iris,
    "local-lipschitz.md": models,
    "mixing.md": models,
    "models.md": model_files,
    "recertify.md": log,
    "report-page.md": run_folders,
    "report.md": summary,
    "safety-case.md": run_folders,
    "verify.md": guarantee,
}

SHORTER = {
    "README.md": [("(inputs, labels), sigma=0.5", "(inputs, labels), samples=100, sigma=0.5")],
    "local-lipschitz.md": [("steps=20, restarts=2", "steps=2, restarts=1")],
}
"""What is replaced in an example to make it quick."""
