"""Saves filters to a folder or the Hugging Face Hub and loads them: safetensors and a JSON config.

Only the methods that save and load import this module, so the filters need only torch. A config
holds names from :data:`spaudio.filters.FILTERS` and plain settings; no class is imported by path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from typing_extensions import override

from spaudio.filters.insertion.layout import Layout
from spaudio.filters.registry import FILTERS, make_filter

if TYPE_CHECKING:
    from spaudio.filters.base import TokenFilter

try:
    from huggingface_hub import PyTorchModelHubMixin  # noqa: TID251
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError
except ImportError as error:
    raise ImportError(
        "saving and loading filters needs huggingface_hub and safetensors: "
        "pip install '.[hub]' in a clone of spaudio"
    ) from error

DTYPES = {str(d): d for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


class SavedFilters(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="spaudio",
    paper_url="https://arxiv.org/abs/2406.10254",
    tags=["filterbank"],
):
    """Filters by name, as they are saved.

    Args:
        filters: Config of each filter (see :meth:`TokenFilter.config`) and its ``dtype``, by name.
            The mixin gives None if it finds no such config.
        layouts: Layout by name, for filters that were inserted into a model.

    Raises:
        ValueError: If there is no config, or a setting is unknown.
    """

    def __init__(
        self,
        filters: Mapping[str, Mapping[str, Any]] | None = None,
        layouts: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(filters, Mapping):
            raise ValueError("no config.json of saved filters; name what save_pretrained has made")
        self.filters: dict[str, TokenFilter] = {}
        # In the order in which config.json, whose keys are sorted, is read again.
        for name, config in sorted(filters.items()):
            if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
                raise ValueError(f"filter {name!r} of config.json has no name; got {config!r}")
            if "device" in config:
                raise ValueError(
                    f"filter {name!r} of config.json names a device, which is not saved"
                )
            settings = dict(config)
            dtype = settings.pop("dtype", None)
            if dtype is not None and dtype not in DTYPES:
                raise ValueError(f"dtype must be one of {sorted(DTYPES)}; got {dtype!r}")
            # On the CPU, whatever torch's default device is; saving and loading must not advance
            # the caller's random generator.
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                self.filters[name] = make_filter(**settings).to(DTYPES.get(dtype))
        # By position: layer names contain dots, which module names must not.
        self._modules_in_order = nn.ModuleList(self.filters.values())
        self.layouts = {name: Layout.of(config) for name, config in (layouts or {}).items()}

    @classmethod
    def of(
        cls, filters: Mapping[str, TokenFilter], layouts: Mapping[str, Layout] | None = None
    ) -> SavedFilters:
        """Copies filters, and the layouts of those that were inserted into a model.

        Raises:
            ValueError: If a class has no name of its own, a filter has parameters of several
                dtypes, shares some with another one, or is pruned or parametrized.
        """
        configs = {}
        owners: dict[nn.Parameter, str] = {}
        for name, filter in filters.items():
            kind = type(filter)
            if is_parametrized(filter):
                raise ValueError(
                    f"filter {name!r} has parametrizations, which are not saved; call "
                    "torch.nn.utils.parametrize.remove_parametrizations first"
                )
            for parameter in filter.parameters():
                if (other := owners.setdefault(parameter, name)) != name:
                    raise ValueError(
                        f"filters {other!r} and {name!r} share parameters, which would be loaded "
                        "as separate ones; save the state dict of the model instead"
                    )
            if FILTERS.get(kind.name) is not kind:
                raise ValueError(
                    f"{kind.__qualname__} has no name of its own, so another class would be "
                    "loaded; give it one"
                )
            dtypes = sorted({str(parameter.dtype) for parameter in filter.parameters()})
            if len(dtypes) > 1:
                raise ValueError(
                    f"filter {name!r} has parameters of the types {', '.join(dtypes)}, which would "
                    "be saved as one; convert it with to(dtype) first"
                )
            config = filter.config() | ({"dtype": dtypes[0]} if dtypes else {})
            configs[name] = json.loads(json.dumps(config, default=int))  # sizes may be of NumPy
        saved = cls(configs, {name: layout.config() for name, layout in (layouts or {}).items()})
        for name, filter in filters.items():
            # Parameters that fully_shard has divided among processes are gathered.
            state = {
                key: value.full_tensor() if hasattr(value, "full_tensor") else value
                for key, value in filter.state_dict().items()
            }
            try:
                saved.filters[name].load_state_dict(state)
            except RuntimeError as error:  # as of a pruned filter
                raise ValueError(
                    f"the parameters of filter {name!r} are not those of a new "
                    f"{type(filter).__name__} ({', '.join(sorted(state))}); make pruning or "
                    "another reparametrization permanent first"
                ) from error
        return saved

    @classmethod
    @override
    def from_pretrained(cls, source: Any, **options: Any) -> Self:  # type: ignore[override]
        """Loads filters with the mixin.

        Raises:
            ValueError: If there is no such folder, it holds no saved filters, a setting is unknown,
                or the weights are damaged or do not fit the settings.
        """
        absent = f"there is no folder {source}; give one from save_pretrained, or an id OWNER/NAME"
        if "/" not in (name := os.fspath(source)) and not os.path.isdir(name):
            raise ValueError(absent)  # rather than ask the Hub, with retries if there is no network
        try:
            loaded: Self = super().from_pretrained(source, **{"strict": True, **options})
        except HFValidationError as error:  # for a name that no repository can have
            raise ValueError(absent) from error
        except SafetensorError as error:
            raise ValueError(
                f"{source}: model.safetensors is damaged, or a pointer of Git LFS ({error}); fetch "
                "it again"
            ) from error
        except FileNotFoundError as error:
            raise ValueError(f"{source}: a file is missing ({error}); fetch it again") from error
        except KeyError as error:
            raise ValueError(f"{source}: config.json lacks {error}; fetch it again") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}: {error}") from error
        except RuntimeError as error:
            raise ValueError(_misfit(source, error)) from error
        return loaded


def _misfit(source: Any, error: RuntimeError) -> str:
    """Message for an error of ``load_state_dict``: weights do not fit the model of config.json."""
    first = [line.strip() for line in str(error).splitlines()][1:2]
    return (
        f"{source}: the weights do not fit its config.json ({first[0] if first else error}); both "
        "must come from one save_pretrained"
    )
