"""Random tests print what it takes to repeat a failure; a slow machine is no failure."""

from hypothesis import HealthCheck, settings

settings.register_profile("dualtrack", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dualtrack")
