"""Python processes of tests that begin in a few milliseconds: forked from one that has imported everything already.

`Popen` and `run` are those of `subprocess`, and what they start is a process like any other: a child of this one,
with a folder, an environment, standard streams, signals and an exit code of its own. Only its imports were done before.
Where starting itself is looked at, `subprocess` is the thing to use; with `CAMORA_TEST_EXEC=1` this is no different.
"""

from tests.forked.client import Popen, run

__all__ = ["Popen", "run"]
