from hypothesis import HealthCheck, Phase, settings

# The same examples in every run, so that a failure comes from the change. New ones are searched for
# with `pytest --hypothesis-profile=default`.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# Without the search for a smallest example, for scripts/mutate.sh.
settings.register_profile(
    "unshrunk", settings.get_profile("steady"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("steady")
