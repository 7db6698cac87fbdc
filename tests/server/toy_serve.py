"""`python -m build.serve` with toy stages: a process that a test can send signals to.

python toy_serve.py --model FOLDER ...
"""

import sys
import types

from build.serve import __main__ as serve
from tests.server.conftest import assemble_toys

# It is imported when it is needed.
sys.modules["build.assemble.repository"] = types.SimpleNamespace(assemble=assemble_toys)
sys.exit(serve.main())
