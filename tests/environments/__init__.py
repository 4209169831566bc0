"""Tests on odd machines and of other programs: users, limits, browsers, notebooks."""
