from hypothesis import HealthCheck, Phase, settings

# The same examples in every run: a failure is the change's, never the day's. New ones are searched
# with `pytest --hypothesis-profile=default`.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# Whoever only asks whether a test fails (scripts/mutate.sh) needs no smallest example of it.
settings.register_profile(
    "unshrunk", settings.get_profile("steady"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("steady")
