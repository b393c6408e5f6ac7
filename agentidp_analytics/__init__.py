"""Client library of AgentIdP Analytics, for identity providers in Python.

It needs Python 3.11 and nothing else. :mod:`agentidp_analytics.client` is the way in.
"""
