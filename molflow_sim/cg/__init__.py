"""Coarse-grained force fields from trajectories: mapping, flow (teacher), force field (student) and report."""

import lazy_loader

# Loaded on first use: a simulation needs neither MDTraj nor the flow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "mapping": ["BeadMapping", "parse_beads"],
        "frames": ["BeadFrames", "read_frames"],
        "teacher.internal": ["InternalCoordinates"],
        "teacher": ["TeacherSettings", "BeadFlow", "ForceSamples", "fit_teacher", "sample_with_forces"],
        "forcefield": ["ForceField"],
        "student.cgnet": ["CGNet", "CGNetSettings"],
        "student.training": ["DistillSettings", "fit_student"],
        "model": ["ModelFolder"],
        "pipeline": ["distill", "fit"],
        "reports.comparison": ["report"],
        "reports.reporting": ["Report", "Score"],
        "simulation": ["CGSimulation"],
    },
)
