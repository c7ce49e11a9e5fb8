"""`lsx serve` with workers that cost nothing: the settings are JSON in the first argument."""

from __future__ import annotations

import sys

from lsx.serving.logs import log_to_stderr
from lsx.serving.settings import ServeSettings
from lsx.serving.supervisor import Place, Supervisor, migrated, worker_names

if __name__ == "__main__":
    settings = ServeSettings.model_validate_json(sys.argv[1])
    log_to_stderr(settings.log_level, process="supervisor", machine=settings.machine)
    places = [Place("tests.serving.fake_worker", name, renewed=True) for name in worker_names(settings.workers)]
    if "alone" not in sys.argv:
        migrated(settings)
        places += [Place("lsx.serving.keeper", "keeper"), Place("lsx.serving.http_process", "http")]
    Supervisor(settings, places).run()
