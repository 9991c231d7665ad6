"""The packaged synthetic tasks `atlas-nli` and `atlas-qa`: small stories about people in cities, in six languages."""

from whichlora.data.tasks.atlas.nli import AtlasNli
from whichlora.data.tasks.atlas.qa import AtlasQa

__all__ = ["AtlasNli", "AtlasQa"]
