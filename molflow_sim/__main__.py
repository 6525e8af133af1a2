"""``python -m molflow_sim`` is the ``molflow`` command."""

from molflow_sim.cli import main

if __name__ == "__main__":
    main()
