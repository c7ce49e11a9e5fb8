"""Adapters that give a talking agent a face: Pipecat and LiveKit Agents, each with an extra of its own."""
