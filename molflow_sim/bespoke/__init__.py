"""A potential of one molecule's own, distilled from a better, slower energy."""

import lazy_loader

__getattr__, _, _ = lazy_loader.attach(
    __name__, submod_attrs={"distillation": ["Bespoke", "DistilSettings", "distil"], "fit": ["FitSettings"]}
)

__all__ = ["Bespoke", "DistilSettings", "FitSettings", "distil"]
