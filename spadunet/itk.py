"""ITK's readers and writers, one call at a time."""

from __future__ import annotations

import os
import threading

ITK_LOCK = threading.Lock()
"""Held while SimpleITK reads or writes a file, in whichever thread.

Two such calls at once damaged the process's heap now and then (SimpleITK 2.5.7, Linux): where label maps were written
and read back in one thread while the headers of the next images were read in another, a third of the processes that
predicted 175 small images died, often much later; with this lock none did.
"""
if hasattr(os, "register_at_fork"):  # a forked child would wait for ever if it were held meanwhile
    os.register_at_fork(before=ITK_LOCK.acquire, after_in_parent=ITK_LOCK.release, after_in_child=ITK_LOCK.release)
