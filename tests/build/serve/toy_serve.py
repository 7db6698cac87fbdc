"""`python -m build.serve` with toy stages: a process that a test can send signals to.

python -m tests.build.serve.toy_serve --model FOLDER ...
"""

import sys
import types

from build.serve import __main__ as serve
from tests.build.serve.conftest import assemble_toys

# It is imported when it is needed.
sys.modules["build.assemble.repository"] = types.SimpleNamespace(assemble=assemble_toys)
sys.exit(serve.main())
