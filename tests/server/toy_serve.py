"""`build/serve.py` with toy stages: a process that a test can send signals to.

python toy_serve.py --model FOLDER ...
"""

import sys
import types

import serve
from conftest import assemble_toys

# It is imported when it is needed.
sys.modules["repository"] = types.SimpleNamespace(assemble=assemble_toys)
sys.exit(serve.main())
