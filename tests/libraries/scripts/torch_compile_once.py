"""In a process where no kernel ran before: the first compilation serves all later calls."""

import numpy as np
import torch

from orthokern import polar

x = torch.tensor(np.diag([3.0, -2.0, 1.0]) + 0.1)
code = torch.compile(lambda x: polar(x)[:2], fullgraph=True, backend="eager")
first = code(x)
with torch.compiler.set_stance("fail_on_recompile"):
    second = code(2 * x)
torch.testing.assert_close(first[0], second[0], rtol=0, atol=4e-15)
torch.testing.assert_close(2 * first[1], second[1], rtol=0, atol=4e-14)
