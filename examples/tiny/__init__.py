"""A generator of talking faces whose truth is known: voice, mouth, face and clips, all from seeds."""
