"""Makes subclasses of other libraries' classes whose objects can be copied and pickled."""

import types
from collections.abc import Callable, Mapping
from typing import Any


def make_subclass(make: Callable[[Any], Any], base: Any, body: Mapping[str, Any]) -> Any:
    """Makes a subclass with the name of its base.

    Args:
        make: The cached function that returns this subclass for ``base``; it can be imported.
        base: The class.
        body: What the subclass adds.
    """

    def reduce_ex(self: Any, protocol: Any) -> Any:
        # The class cannot be imported by name, so copies and pickles create it from its base and
        # then set the state of the blank object.
        return _blank, (make, base), self.__getstate__()

    body = {**body, "__reduce_ex__": reduce_ex}
    # The name of the base: accelerate and FSDP look up the classes to wrap by name.
    return types.new_class(base.__name__, (base,), {}, lambda ns: ns.update(body))


def _blank(make: Callable[[Any], Any], base: Any) -> Any:
    cls = make(base)
    return cls.__new__(cls)
