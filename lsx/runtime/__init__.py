"""The runtime: audio, faces, video, schedule, denoising and the frame pipeline. Never imports torch."""
