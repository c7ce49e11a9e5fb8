"""Face detector and landmarks: fetched or given, converted, and wrapped into lsx's graph contract."""
