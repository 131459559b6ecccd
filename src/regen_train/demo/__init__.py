"""The whole way in minutes, on a toy: people go in, other people come out, and all of it is measured and shown."""

from regen_train.demo.run import run_demo
from regen_train.demo.settings import DemoSettings

__all__ = ["DemoSettings", "run_demo"]
