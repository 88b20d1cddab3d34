"""Redis is away, or hangs: calls stay protected, nothing waits for long, and it heals."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from labkit.breaker import SharedBreaker, connect
from labkit.breaker.shared import AWAY_S
from labkit.clock import FakeClock
from labkit.errors import BrokerUnavailableError
from labkit.lab import embedded
from labkit.lab.home import find_home
from labkit.signals import Signal, Signals
from tests.breaking import attempt, fail, open_up, work

NOBODY = "redis://127.0.0.1:1"
