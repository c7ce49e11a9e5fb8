"""The first hour on a GPU: what lsx does there, tried stage by stage, and one page that tells how it went."""
