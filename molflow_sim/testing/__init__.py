"""Checks that every generator, network, model and potential must pass, ours and those of other packages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "generator": ["validate_generator"],
        "model": ["validate_model"],
        "network": ["validate_network"],
        "potential": ["validate_potential"],
    },
)
