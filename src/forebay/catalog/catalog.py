"""What the models directory holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct, structs

from forebay.catalog.names import natural_key
from forebay.core.errors import NotFound
from forebay.core.model import ModelSpec


class Catalog(Struct, frozen=True, kw_only=True):
    """`specs` by name and version, versions in natural order; `problems` by name, for an operator to read.

    A model may stand in both: some of its versions can be served and others cannot. `untrusted` are those that have no
    other problem than that nobody named them as trusted.
    """

    specs: Mapping[str, Mapping[str, ModelSpec]]
    problems: Mapping[str, tuple[str, ...]] = {}
    untrusted: Collection[str] = frozenset()

    def names(self, among: Collection[str] = ()) -> tuple[str, ...]:
        """The models that can be resolved, sorted; where `among` names any, only those of them."""
        return tuple(name for name in sorted(self.specs) if not among or name in among)

    def default_version(self, name: str) -> str:
        """The highest version in natural order: 10 comes after 9. Raises NotFound as `resolve` does."""
        return max(self._versions(name), key=natural_key)

    def resolve(self, name: str, version: str = "") -> ModelSpec:
        """The model of that name, in its default version unless another is asked for. Raises NotFound."""
        versions = self._versions(name)
        if not version:
            return versions[self.default_version(name)]
        if version not in versions:
            known = sorted(versions, key=natural_key)
            message = f"model {name!r} is not served in version {version!r}, only in {', '.join(known)}"
            raise NotFound(message, known=known, code="unknown_version")
        return versions[version]

    def served(self) -> Catalog:
        """The same with the default version of each model only, which is what workers serve."""
        defaults = [self.resolve(name) for name in self.specs]
        specs = {spec.name: {spec.version: spec} for spec in defaults}
        return structs.replace(self, specs=specs)

    def _versions(self, name: str) -> Mapping[str, ModelSpec]:
        if name in self.specs:
            return self.specs[name]
        known = self.names()
        if name in self.problems:
            message = f"model {name!r} cannot be served: {self.problems[name][0]}"
            code = "model_untrusted" if name in self.untrusted else "model_misdescribed"
            raise NotFound(message, known=known, code=code)
        listed = f"the models are {', '.join(known)}" if known else "there are no models"
        raise NotFound(f"no model is named {name!r}; {listed}", known=known, code="unknown_model")
