"""A nonlinear mix that was loaded from its folder, and the modules it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from certmix.errors import ModelError
from certmix.models.spec import LoadedModel
from certmix.nuts.adaptive import AuxiliaryMixture, DirectBypass
from certmix.nuts.description import FitFacts, MixSettings, NutsDescription, TuningImages
from certmix.nuts.mixture import NutsMixture, TransformedRobust
from certmix.nuts.nuts_file import FILE
from certmix.nuts.transform import NonlinearTransform

__all__ = ["LoadedNuts", "transform_of"]


@dataclass(frozen=True)
class LoadedNuts:
    """A mix that was loaded: its base models, its numbers, and how they were found.

    Parameters
    ----------
    folder
        Where it lies.
    description
        The contents of ``nuts.json``.
    standard, robust
        The base models, as they were tuned.
    """

    folder: Path
    description: NutsDescription
    standard: LoadedModel
    robust: LoadedModel

    @property
    def settings(self) -> MixSettings:
        """s, p, c, alpha and the rest."""
        return self.description.settings

    @property
    def fit(self) -> FitFacts | None:
        """How the settings were found, None where unknown."""
        return self.description.fit

    @property
    def tuning(self) -> TuningImages | None:
        """Images to stay away from in an evaluation, None where unknown."""
        return self.description.tuning

    @property
    def mixture(self) -> NutsMixture:
        """The mix itself, in evaluation mode."""
        own = self.settings
        mixture = NutsMixture(
            self.standard.module, self.robust.module, transform_of(own), own.alpha, own.temperature
        )
        return mixture.eval()

    @property
    def transformed(self) -> TransformedRobust:
        """The robust model behind the transform, in evaluation mode."""
        return TransformedRobust(self.robust.module, transform_of(self.settings)).eval()

    @property
    def auxiliary(self) -> AuxiliaryMixture:
        """What attacks differentiate, in evaluation mode; needs alpha_d."""
        return _auxiliary(self.mixture, self.settings, self.folder)

    @property
    def bypass(self) -> DirectBypass:
        """The mix with the auxiliary's gradient, in evaluation mode; needs alpha_d."""
        mixture = self.mixture
        return DirectBypass(mixture, _auxiliary(mixture, self.settings, self.folder)).eval()


def transform_of(settings: MixSettings) -> NonlinearTransform:
    """Return the transform with these settings."""
    return NonlinearTransform(**vars(settings.transform))


def _auxiliary(mixture: NutsMixture, settings: MixSettings, folder: Path) -> AuxiliaryMixture:
    if settings.alpha_d is None:
        raise ModelError(
            f"{folder / FILE} has no alpha_d, which the gradient of an adaptive attack needs: "
            "compute it with certmix.nuts.auxiliary_alpha and save the mix again"
        )
    parts = mixture.standard, mixture.robust, mixture.transform
    return AuxiliaryMixture(*parts, alpha_d=settings.alpha_d, r_d=settings.r_d).eval()
