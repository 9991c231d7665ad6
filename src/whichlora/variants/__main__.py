"""Prints the catalogue of variants: `python -m whichlora.variants`."""

import sys

from whichlora.variants.command import main

sys.exit(main())
