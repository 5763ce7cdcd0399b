"""XZepr: an event hub for the software supply chain."""

__version__ = "0.1.0"
