"""The equation of state of the homogeneous electron gas at finite temperature, variationally."""

from importlib.metadata import version

from heg.api import Run, load_run, measure, plot, plot_momentum, solve
from heg.config import Config, ModelConfig, OptimizerConfig, RunConfig, SamplerConfig, SystemConfig
from heg.eos.table import Table
from heg.eos.table_files import load_table
from heg.gas.ideal import choose_cutoff, thermodynamics
from heg.gas.plasma import Plasma, plasma
from heg.gas.system import System
from heg.reference.published import published_f_xc
from heg.statistics import Estimate
from heg.training.step import build

__version__ = version("heg")


def __dir__() -> list[str]:
    """The public names alone, for completion in a notebook."""
    return [*__all__, "__version__"]


__all__ = [
    "Config",
    "Estimate",
    "ModelConfig",
    "OptimizerConfig",
    "Plasma",
    "Run",
    "RunConfig",
    "SamplerConfig",
    "System",
    "SystemConfig",
    "Table",
    "build",
    "choose_cutoff",
    "load_run",
    "load_table",
    "measure",
    "plasma",
    "plot",
    "plot_momentum",
    "published_f_xc",
    "solve",
    "thermodynamics",
]
