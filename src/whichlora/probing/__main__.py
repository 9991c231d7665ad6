"""The command line of the entry point `probe`."""

import sys

from whichlora.probing import main

sys.exit(main())
