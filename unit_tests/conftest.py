from hypothesis import HealthCheck, settings

# The same examples in every run: a failure is the change's, never the day's. New ones are searched
# with `pytest --hypothesis-profile=default`.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
