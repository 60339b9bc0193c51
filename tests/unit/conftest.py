"""Random tests print what it takes to repeat a failure."""

from hypothesis import settings

settings.register_profile("dualtrack", print_blob=True, deadline=None)
settings.load_profile("dualtrack")
