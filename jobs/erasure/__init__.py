"""Erasure: export an organization, delete it, or replace the id of one of its agents.

The tables are found by their columns ``tenant_id`` and ``agent_id``, so a new table needs no change
here. A test fails for a new column of texts until somebody has said whether it can hold the id of
an agent (``tests/jobs/erasure/test_agent.py``).
"""
