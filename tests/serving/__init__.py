"""Tests of lsx serve."""
