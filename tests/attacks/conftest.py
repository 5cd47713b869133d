"""AutoAttack with few steps."""

import pytest


@pytest.fixture
def quick(monkeypatch):
    """Ten steps instead of a hundred, or of thousands; a test that needs the package is skipped without."""
    package = pytest.importorskip("pyautoattack")
    run = package.AutoAttack.run_standard_evaluation

    def shorter(self, *given, **settings):
        for attack in (self.apgd, self.apgd_targeted, self.fab):
            attack.n_iter = 10
        self.square.n_queries = 100
        return run(self, *given, **settings)

    monkeypatch.setattr(package.AutoAttack, "run_standard_evaluation", shorter)
