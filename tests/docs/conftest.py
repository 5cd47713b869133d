"""Models of examples are made once a command: that a factory draws its weights is told elsewhere."""

import pytest


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the second making, which trains the models of some pages once more."""
    monkeypatch.setattr("certmix.models.spec.draws_weights", lambda module, again: False)
