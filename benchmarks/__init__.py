"""What the service costs, beside what the same work costs done otherwise, on the same machine.

``python -m benchmarks R1`` measures one row, ``make bench`` all of them. Nothing is installed
with the service. Seconds mean little on machines that are shared, so every figure is a ratio
of two things that were measured in turns, a few seconds apart.
"""
