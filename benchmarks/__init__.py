"""Benchmarks: the cost of the service, compared with other ways to do the same work.

``python -m benchmarks R1`` measures one row, and ``make bench`` measures all rows. The service's
package does not contain the benchmarks. Seconds mean little on a shared machine. So nearly every
figure is a ratio of two measurements that were taken in turns, a few seconds apart.
"""
