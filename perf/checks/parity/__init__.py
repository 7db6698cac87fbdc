"""Random requests, served, compared with transformers.

__main__: asks both, and prints what differs
cases: draws the requests
served: what the server gives for one
decoded: the same pictures for transformers
"""

import tests.support.torchvision_operators  # noqa: F401  before transformers
