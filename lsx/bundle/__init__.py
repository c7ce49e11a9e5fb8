"""The bundle: a folder with a manifest, graphs and plans, all hashed. Never imports torch."""

from lsx.bundle.bundle import Bundle

__all__ = ["Bundle"]
