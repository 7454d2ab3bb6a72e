"""The whole pipeline on data that comes with the package."""
