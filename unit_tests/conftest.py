from hypothesis import HealthCheck, Phase, settings

# Every run tests the same examples, so that a failure comes from the change.
# `pytest --hypothesis-profile=default` searches for new ones.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# scripts/mutate.sh uses this profile, which does not search for the smallest example.
settings.register_profile(
    "unshrunk", settings.get_profile("steady"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("steady")
