"""Releases as they are downloaded to raw dataset folders."""
