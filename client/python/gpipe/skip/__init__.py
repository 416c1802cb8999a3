"""Skip connections in an nn.Sequential, with the names and the behaviour of torchgpipe.skip (docs/python.md):

    @skippable(stash=["skip"])
    class Down(nn.Module):
        def forward(self, input):
            yield stash("skip", input)
            return self.convolution(input)

    @skippable(pop=["skip"])
    class Up(nn.Module):
        def forward(self, input):
            skip = yield pop("skip")
            return self.convolution(input) + skip

    model = nn.Sequential(Down(), nn.ReLU(), Up())

Such a model runs as it is, and exports: a skip is then a value of the program like any other, which a cluster sends
straight from the stage that stashes it to the one that pops it.
"""

from __future__ import annotations

from gpipe.skip._layout import verify_skippables
from gpipe.skip._namespace import Namespace
from gpipe.skip._skippable import pop, skippable, stash

__all__ = ["Namespace", "pop", "skippable", "stash", "verify_skippables"]
