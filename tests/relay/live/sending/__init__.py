"""Tests of the loop that sends to the links of a channel, compiled and in Python."""
