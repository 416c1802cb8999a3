"""The model's tensors in this process, and those of its workers: what is newer where, and what has to go there before
the workers do anything with it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Set

import torch
from torch import nn

from gpipe import errors, v1
from gpipe._gpipe import proxies
from gpipe._gpipe.proxies import Kind, MirroredParameter
from gpipe._gpipe.session import Session

LOST = ("what the workers had of the model's parameters and buffers was lost with their job; load_state_dict() gives "
        "the model others")
STATES = {Kind.VALUE: v1.STATE_KIND_VALUES, Kind.GRADIENT: v1.STATE_KIND_GRADIENTS}  # As workers call them.


class Mirror:
    """The Owner of all parameters and buffers of a model that are in its state_dict(), and of the gradients."""

    def __init__(self) -> None:
        self.session: Session | None = None  # Whoever opens and ends it sets it.
        self.hides_gradients_from: Callable[[], bool] | None = None  # True: for the optimizer that is to do nothing.
        self._values: dict[str, torch.Tensor] = {}
        self._gradients: dict[str, torch.Tensor] = {}  # Those that somebody has looked at, or given.
        self._differentiated: set[str] = set()  # Parameters that have a gradient, as one sees it.
        self._accumulated: set[str] = set()  # Those of which workers have one.
        self._lock = threading.RLock()  # Backward passes may be on another thread.

    # --- What there is ---

    def adopt(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The model's, by their names. Those that are new in it have still to go to the workers; those that it has no
        more are tensors like others."""
        names = {id(tensor): name for name, tensor in tensors.items()}
        gone = {name: tensor for name, tensor in self._values.items() if tensors.get(name) is not tensor}
        renamed = {name: names[id(tensor)] for name, tensor in gone.items() if id(tensor) in names}
        gradients = self._take_gradients(renamed)
        for name, tensor in tensors.items():
            if self._values.get(name) is not tensor or proxies.copy_of(tensor).owner is not self:
                proxies.mirror(tensor, name, Kind.VALUE, self)
        for name, tensor in gone.items():
            self._release(name)
            if name not in renamed:
                proxies.copy_of(tensor).prepare(aliased=False)
                proxies.as_plain(tensor)
        self._values = dict(tensors)
        for name, gradient in gradients.items():
            proxies.mirror(gradient, name, Kind.GRADIENT, self)
            self._gradients[name] = gradient
            self._differentiated.add(name)

    @contextlib.contextmanager
    def plain(self, trained: Set[str] = frozenset()) -> Iterator[None]:
        """Meanwhile parameters and buffers are tensors like others, and these parameters require gradients."""
        self.refresh_stale()
        frozen = [self._values[name] for name in trained - self.trained().keys() if name in self._values]
        copies = [(tensor, proxies.as_plain(tensor)) for tensor in self._values.values()]
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for tensor, copy in copies:
                proxies.as_mirrored(tensor, copy)

    def trained(self) -> dict[str, torch.Tensor]:
        """Parameters that require a gradient."""
        with torch._C.DisableTorchFunctionSubclass():
            return {name: tensor for name, tensor in self._values.items()
                    if isinstance(tensor, nn.Parameter) and tensor.requires_grad}

    @property
    def is_whole(self) -> bool:
        """Whether nothing is on the workers that is not here."""
        return not any(proxies.copy_of(tensor).is_stale for tensor in self._values.values())

    def parameters(self) -> dict[str, torch.Tensor]:
        """All of them."""
        return {name: tensor for name, tensor in self._values.items() if isinstance(tensor, nn.Parameter)}

    def differentiated(self) -> dict[str, torch.Tensor]:
        """Parameters that have a gradient."""
        with self._lock:
            self._take_own_gradients(self._values)
            return {name: self._values[name] for name in self._differentiated}

    # --- What the workers have done ---

    def note_forward(self) -> None:
        """In training. It may have changed buffers."""
        for tensor in self._values.values():
            if not isinstance(tensor, nn.Parameter):
                proxies.copy_of(tensor).is_stale = True

    def note_update(self) -> None:
        """An optimizer has changed the parameters that have a gradient."""
        for name in self._differentiated:
            proxies.copy_of(self._values[name]).is_stale = True

    def note_opened(self, with_values: bool) -> None:
        """A session has begun, whose workers have the values that are here, or none of them; and no gradients."""
        self._accumulated.clear()
        for tensor in self._values.values():
            proxies.note(tensor, equal=with_values)
        for tensor in self._gradients.values():
            proxies.note(tensor, equal=False)

    @contextlib.contextmanager
    def backward(self, names: Set[str], wanted: Set[str]) -> Iterator[None]:
        """Meanwhile workers are asked to add to the gradients of these parameters. Those that are not wanted are
        afterwards what they were."""
        added, kept = names & wanted, names - wanted
        with self._lock:
            if not self._differentiated.isdisjoint(kept):
                self.fetch_gradients()
            self.send(Kind.GRADIENT)
            try:
                yield
                self._differentiated |= added
            finally:  # Whoever has not waited for it, as after a Ctrl-C: workers add to them all the same.
                self._accumulated |= names
                for name, tensor in self._gradients.items():
                    if name in added:
                        proxies.copy_of(tensor).is_stale = True
                    elif name in kept:
                        proxies.note(tensor, equal=False)

    # --- To the workers ---

    def send(self, kind: Kind) -> None:
        """What was written here, before workers use or change it."""
        with self._lock:
            if kind is Kind.GRADIENT:
                self._take_own_gradients(self._values)
                self._let_go()
            written = {name: tensor for name, tensor in self._table(kind).items() if proxies.is_written(tensor)}
            if written:
                self._open().set_state({name: proxies.alias(tensor) for name, tensor in written.items()}, STATES[kind])
            for tensor in written.values():
                proxies.note(tensor, equal=True)
            if kind is Kind.GRADIENT:
                self._accumulated |= written.keys()

    def _let_go(self) -> None:
        """Of the gradients that parameters have not got. Workers let go of all, and get back those that are left."""
        if self._accumulated <= self._differentiated:
            return
        self.fetch_gradients()
        self._zero()
        for tensor in self._gradients.values():
            proxies.note(tensor, equal=False)

    # --- From the workers ---

    def refresh(self, kind: Kind) -> None:
        """As Owner has it. What was written here stays as it is."""
        with self._lock:
            if kind is Kind.GRADIENT:  # Whoever looks at one looks at the next.
                for name in self._differentiated:
                    self._gradient_copy(name)
            found = self._open().state(STATES[kind])
            for name, tensor in self._table(kind).items():
                if proxies.copy_of(tensor).is_stale:
                    proxies.fill(tensor, found.get(name))

    def refresh_stale(self) -> None:
        """Values, where the workers have newer ones."""
        if not self.is_whole:
            self.refresh(Kind.VALUE)

    def fetch_gradients(self) -> None:
        """All of them, before a session ends."""
        fetched = {name for name, tensor in self._gradients.items() if not proxies.copy_of(tensor).is_stale}
        if self._differentiated - fetched:
            self.refresh(Kind.GRADIENT)

    def forget_gradients(self) -> None:
        """Those that only workers had are lost."""
        self._gradients = {name: tensor for name, tensor in self._gradients.items()
                           if not proxies.copy_of(tensor).is_stale}
        self._differentiated &= self._gradients.keys()

    def forget_stale(self, written: Iterable[torch.Tensor]) -> None:
        """The values of those are about to be written."""
        own = {id(tensor) for tensor in self._values.values()}
        for tensor in written:
            if id(tensor) in own and proxies.copy_of(tensor).is_stale:
                proxies.copy_of(tensor).set_written()

    # --- Gradients, as parameters show them ---

    def gradient(self, parameter: MirroredParameter) -> torch.Tensor | None:
        """As Owner has it."""
        if self.hides_gradients_from is not None and self.hides_gradients_from():
            return None
        name = proxies.copy_of(parameter).name
        with self._lock:
            self._take_own_gradients([name])
            return self._gradient_copy(name) if name in self._differentiated else None

    def set_gradient(self, parameter: MirroredParameter, gradient: torch.Tensor | None) -> None:
        """As Owner has it. When the last one is let go of, the workers do so, too."""
        name = proxies.copy_of(parameter).name
        with self._lock:
            if gradient is None or gradient is not self._gradients.get(name):
                proxies.set_own_gradient(parameter, gradient)  # PyTorch checks that it fits.
                self._release(name)
                self._take_own_gradients([name])
            if not self._differentiated:
                self._zero()

    def _take_gradients(self, renamed: Mapping[str, str]) -> dict[str, torch.Tensor]:
        """Of parameters whose names others will have, under their new names."""
        if not renamed.keys() & self._differentiated:
            return {}
        if self.session is None or self.session.failed:
            self.forget_gradients()
        self.fetch_gradients()
        taken = {renamed[name]: self._gradients.pop(name) for name in renamed if name in self._gradients}
        self._differentiated -= renamed.keys()
        return taken

    def _release(self, name: str) -> None:
        """Whoever has the gradient in another variable keeps its values."""
        if name in self._gradients:
            held = weakref.ref(self._gradients.pop(name))
            if (gradient := held()) is not None:
                self._gradients[name] = gradient
                proxies.copy_of(gradient).prepare(aliased=False)
                proxies.as_plain(self._gradients.pop(name))
        self._differentiated.discard(name)

    def _zero(self) -> None:
        if self._accumulated and self.session is not None and not self.session.failed:
            self.session.zero_gradients()
        self._accumulated.clear()

    def _gradient_copy(self, name: str) -> torch.Tensor:
        if name not in self._gradients:
            gradient = torch.empty_like(proxies.alias(self._values[name]))
            proxies.mirror(gradient, name, Kind.GRADIENT, self)
            proxies.copy_of(gradient).is_stale = True
            self._gradients[name] = gradient
        return self._gradients[name]

    def _take_own_gradients(self, names: Iterable[str]) -> None:
        """What autograd or somebody has left at parameters in this process. From now on they are copies, which are
        newer than what the workers have."""
        for name in names:
            parameter = self._values[name]
            own = proxies.own_gradient(parameter)
            if own is None:
                continue
            proxies.set_own_gradient(parameter, None)
            if name in self._differentiated:
                self._gradient_copy(name).add_(own)
            else:
                proxies.mirror(own, name, Kind.GRADIENT, self)
                self._gradients[name] = own
                self._differentiated.add(name)

    def _table(self, kind: Kind) -> dict[str, torch.Tensor]:
        return self._values if kind is Kind.VALUE else self._gradients

    def _open(self) -> Session:
        if self.session is None:
            raise errors.Error(LOST)
        return self.session
