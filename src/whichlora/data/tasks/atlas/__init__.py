"""The packaged synthetic tasks `atlas-nli` and `atlas-qa`: short texts about people in cities, in six languages.

`world` and `people` define the entities, and `splits` assigns them to splits. `templates` and `grammar` write sentences
about them. `stories` draws the content of NLI items; `nli` and `qa` define the tasks.
"""

from whichlora.data.tasks.atlas.nli import AtlasNli
from whichlora.data.tasks.atlas.qa import AtlasQa

__all__ = ["AtlasNli", "AtlasQa"]
